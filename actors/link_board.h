// What a rank's thread has seen of its links, and what its steps have taken, for the thread that
// answers beats while it computes.
// Any thread.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

class LinkBoard {
 public:
  /// One end of a link; when it was looked at says that time itself.
  struct Seen {
    rpc::LinkBeat beat;
    TimePoint looked;
  };
  void write(std::vector<Seen> seen, const rpc::StepTotals& steps) {
    const std::lock_guard lock(mutex_);
    seen_ = std::move(seen);
    steps_ = steps;
  }
  rpc::StepTotals steps() const {
    const std::lock_guard lock(mutex_);
    return steps_;
  }
  std::vector<rpc::LinkBeat> read(TimePoint now) const {
    const std::lock_guard lock(mutex_);
    std::vector<rpc::LinkBeat> beats;
    for (const Seen& seen : seen_) {
      beats.push_back(seen.beat);
      beats.back().looked_ago_ns = (now - seen.looked).count();
    }
    return beats;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Seen> seen_;
  rpc::StepTotals steps_;
};

}  // namespace chainpump::actors
