// How a call is answered by whoever does its work. No header of the RPC library shows.
#pragma once

#include <functional>
#include <utility>

#include "base/result.h"

namespace chainpump::transport::rpc {

/// The answer that a call waits for. Movable; answered at most once, from any thread, also after
/// the caller has gone (then it is dropped). Destroyed unanswered it answers `internal`.
template <typename T>
class Reply {
 public:
  Reply() = default;
  explicit Reply(std::function<void(Result<T>)> send) : send_(std::move(send)) {}
  Reply(Reply&& other) noexcept : send_(std::exchange(other.send_, nullptr)) {}
  Reply& operator=(Reply&& other) noexcept {
    if (this != &other) {
      abandon();
      send_ = std::exchange(other.send_, nullptr);
    }
    return *this;
  }
  ~Reply() { abandon(); }

  void operator()(Result<T> result) {
    CHECK_MSG(send_ != nullptr, "a call may be answered once");
    std::exchange(send_, nullptr)(std::move(result));
  }
  bool answered() const { return send_ == nullptr; }

 private:
  void abandon() {
    if (send_) (*this)(make_error(ErrorCode::internal, "the rank dropped the call unanswered"));
  }

  std::function<void(Result<T>)> send_;
};

}  // namespace chainpump::transport::rpc
