// What flows from a lane's door to the gateway, in order, for as long as both are there: one
// connection. One thread.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "graph/request.h"
#include "graph/router.h"
#include "tests/sim/sim_world.h"

namespace chainpump::sim {

/// What requests have come to, by the client's numbers, in order; an end is the last of its choice.
struct LaneResults {
  template <typename T>
  struct Of {
    uint64_t wire = 0;
    uint32_t choice = 0;
    T what;
  };
  std::vector<Of<graph::TokenResult>> tokens;
  std::vector<Of<graph::ScoreResult>> scores;
  std::vector<Of<Result<graph::FinishReason>>> ends;
  graph::LaneStats stats;
  bool empty() const { return tokens.empty() && scores.empty() && ends.empty(); }
};

class ResultStream : public std::enable_shared_from_this<ResultStream> {
 public:
  ResultStream(SimWorld& world, Duration delay, std::function<void(const LaneResults&)> on_results,
               std::function<void()> on_lost)
      : world_(world),
        delay_(delay),
        on_results_(std::move(on_results)),
        on_lost_(std::move(on_lost)) {}

  LaneResults gathered;    // since the last flush
  uint64_t num_taken = 0;  // requests

  /// By the door: what has gathered goes out.
  void flush(graph::LaneStats stats) {
    if (gathered.empty()) return;
    gathered.stats = std::move(stats);
    arrive([self = shared_from_this(), results = std::exchange(gathered, {})] {
      if (!self->is_void_) self->on_results_(results);
    });
  }
  /// The door has died: of what is on its way some may arrive yet.
  void lose() {
    if (world_.random.chance(2)) cut_at_ = world_.now() + world_.random.up_to(delay_);
    arrive([self = shared_from_this()] {
      if (!std::exchange(self->is_void_, true)) self->on_lost_();
    });
  }
  /// By the gateway: nothing of it is for anybody any more.
  void leave() { is_void_ = true; }
  bool is_left() const { return is_void_; }

 private:
  template <typename What>
  void arrive(What what) {
    last_ = std::max(last_, world_.now() + delay_);
    world_.events.at(last_, [self = shared_from_this(), what] {
      if (!self->cut_at_ || self->world_.now() <= *self->cut_at_) return what();
      if (!std::exchange(self->is_void_, true)) self->on_lost_();
    });
  }

  SimWorld& world_;
  const Duration delay_;
  const std::function<void(const LaneResults&)> on_results_;
  const std::function<void()> on_lost_;
  TimePoint last_;
  std::optional<TimePoint> cut_at_;
  bool is_void_ = false;
};

}  // namespace chainpump::sim
