// The life of one end of a link and the deadline of its present phase, the same for every
// transport:
//
//   connecting -> open -> closing -> closed
//   any of the first three -> failed
//
// Closed and failed are final. Pure; one thread.
#pragma once

#include <utility>

#include "base/clock.h"
#include "base/ids.h"
#include "transport/link.h"

namespace chainpump::transport {

// A rank prepares all its slots before it answers, and many ranks of a busy machine do so at once.
// A peer that died is noticed by other means; this only ends what nobody else does.
inline constexpr Duration kConnectDeadline = std::chrono::seconds(20);
inline constexpr Duration kCloseDeadline = std::chrono::seconds(1);

class EndState {
 public:
  EndState(const Clock& clock, EdgeId edge, LinkState state)
      : clock_(clock), edge_(edge), state_(state), due_(clock.now() + kConnectDeadline) {}

  LinkState state() const { return state_; }
  const Error& error() const { return error_; }
  bool ended() const { return state_ == LinkState::failed || state_ == LinkState::closed; }

  void opened() {
    if (state_ == LinkState::connecting) state_ = LinkState::open;
  }
  /// True if this began it; otherwise there is nothing to close.
  bool start_closing() {
    if (state_ != LinkState::open) return false;
    state_ = LinkState::closing;
    due_ = clock_.now() + kCloseDeadline;
    return true;
  }
  void finish_closing() {
    if (state_ != LinkState::failed) state_ = LinkState::closed;
  }
  void fail(Error error) {
    if (ended()) return;
    state_ = LinkState::failed;
    error_ = std::move(error);
  }
  void fail_peer_gone(std::string_view why) {
    fail(make_error(ErrorCode::disconnected, "edge {}: the other end is gone ({})", edge_, why));
  }
  /// True if the phase's deadline has passed; the end has then failed with deadline_exceeded.
  bool fail_if_overdue() {
    if (!overdue()) return false;
    fail(make_error(ErrorCode::deadline_exceeded, "edge {}: the other end did not {} in time",
                    edge_, state_ == LinkState::connecting ? "answer" : "finish closing"));
    return true;
  }
  bool overdue() const {
    if (state_ != LinkState::connecting && state_ != LinkState::closing) return false;
    return clock_.now() >= due_;
  }

 private:
  const Clock& clock_;
  EdgeId edge_;
  LinkState state_;
  TimePoint due_;
  Error error_;
};

}  // namespace chainpump::transport
