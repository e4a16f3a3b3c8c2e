// The bounded queue between whoever makes results and the loop that sends them to one client. Any
// thread.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::transport::rpc {

class ResultQueue {
 public:
  explicit ResultQueue(size_t results_max) : results_max_(results_max) {}

  /// What wakes the loop; set before any push.
  void set_wake(std::function<void()> wake) { wake_ = std::move(wake); }

  /// As ResultSinkHandle.
  Status push(LaneResults results);
  size_t room() const;

  /// The loop's side: all there is. When there is nothing, the next push wakes the loop again.
  LaneResults take();
  /// Takes no more; what is queued is dropped.
  void close();

 private:
  size_t num_queued() const { return queued_.tokens.size() + queued_.scores.size(); }

  const size_t results_max_;
  std::function<void()> wake_;
  mutable std::mutex mutex_;
  LaneResults queued_;
  bool awake_ = false;  // the loop has been told and will call take()
  bool closed_ = false;
};

}  // namespace chainpump::transport::rpc
