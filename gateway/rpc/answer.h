// An answer of the service that a thread of the client waits for, finished by the connection's. Any
// thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "gateway/types.h"

namespace chainpump::gateway::rpc {

/// An answer that a thread waits for. Finished once; dropped unfinished it says that the service
/// has gone.
template <typename T>
class Answer {
 public:
  void finish(Result<T> result) {
    const std::lock_guard lock(mutex_);
    if (!result_) result_ = std::move(result);
    changed_.notify_all();
  }
  /// None: not within `patience`.
  std::optional<Result<T>> wait(Duration patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return result_.has_value(); });
    return result_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Result<T>> result_;
};

/// Sees to it that an answer is finished, whatever becomes of the call.
template <typename T>
class Promised {
 public:
  explicit Promised(std::shared_ptr<Answer<T>> answer) : answer_(std::move(answer)) {}
  ~Promised() { answer_->finish(gone()); }
  Promised(const Promised&) = delete;
  Promised& operator=(const Promised&) = delete;
  void finish(Result<T> result) { answer_->finish(std::move(result)); }

 private:
  std::shared_ptr<Answer<T>> answer_;
};

}  // namespace chainpump::gateway::rpc
