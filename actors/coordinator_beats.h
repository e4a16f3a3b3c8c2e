// How a coordinator shows that it is at work. Who asks is answered by its actor, in its turn: not
// while that is stuck. But while the actor waits for the store, the question is answered at once,
// for up to ten seconds: a slow disk is no hang, it could not be interrupted anyway, and a
// successor would have to write to the same. Any thread.
#pragma once

#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "transport/rpc/reply.h"

namespace chainpump::actors {

class CoordinatorBeats {
 public:
  static constexpr Duration kWriteMax = std::chrono::seconds(10);

  /// Whether the actor is to be told, so that it calls answer_all().
  bool on_asked(transport::rpc::Reply<Ok> reply, TimePoint now);
  void answer_all();

  /// As long as the actor waits for the store. Who has asked before is answered.
  class Writing {
   public:
    /// `beats` may be null: nobody asks.
    Writing(CoordinatorBeats* beats, TimePoint now);
    ~Writing();
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

   private:
    CoordinatorBeats* const beats_;
  };

 private:
  void set_writing(std::optional<TimePoint> since);

  std::mutex mutex_;
  std::vector<transport::rpc::Reply<Ok>> waiting_;
  std::optional<TimePoint> writing_since_;
};

}  // namespace chainpump::actors
