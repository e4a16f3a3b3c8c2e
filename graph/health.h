// Whether a deployment is ready, and if not, why: two pure cores, of the two ends of a lane's ring.
//
// Ready means that a token has crossed every stage of some lane lately. Traffic shows that by
// itself. A lane without any is shown alive by a canary, a sequence of one token that is nobody's,
// computed like all others:
//
//   Canary, at the lane's first rank     what it does
//   begin(): the lane is at work anew    nothing has crossed; a canary is due after settle
//   on_crossing(): traffic, or a canary  a canary is due after idle
//   is due, and nothing runs or waits    the canary is sent, once; the next one is due after idle
//   is due, but something runs or waits  that is to show it
//
//   Health, at whoever uses the lanes    the lane is
//   -                                    starting: the deployment says nothing of it yet
//   told: serves, in an epoch            serving: ready, once there is a crossing of that epoch, as
//                                        long as its last is not older than crossing_max
//   told: away, in an epoch, and why     away, whatever has crossed before
//   lost() .. joined()                   as before, but not ready: nobody could use it
//
// The epoch is the lane's: each repair has one of its own, so what crossed before a death does not
// count after it, in whatever order the two are heard of. While no coordinator lives, what it said
// last holds, for its death harms no lane; a lane that dies meanwhile has no crossings.
// Pure; one thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct CanaryLimits {
  Duration settle = std::chrono::milliseconds(50);  // for the requests that waited for the lane
  Duration idle = std::chrono::seconds(5);
};

class Canary {
 public:
  explicit Canary(const CanaryLimits& limits = {}) : limits_(limits) {}

  void begin(TimePoint now);
  void on_crossing(TimePoint now);
  /// True if it is to be sent now, which this takes for done. `idle`: nothing runs or waits.
  bool ask(bool idle, TimePoint now);
  /// When ask() may be true, if the lane is idle then; nothing before begin().
  std::optional<TimePoint> due() const { return due_; }
  /// Since begin().
  std::optional<TimePoint> last_crossing() const { return last_crossing_; }

 private:
  CanaryLimits limits_;
  std::optional<TimePoint> due_;
  std::optional<TimePoint> last_crossing_;
};

/// What a coordinator says of a lane.
struct LaneNews {
  PlanEpoch epoch;
  bool serves = false;
  std::string why = {};   // it does not: what happened, in a sentence, without the lane
  Duration away_for{0};   // if it does not
  std::string slow = {};  // which of its ranks have become slow, in a sentence; none: empty
  bool operator==(const LaneNews&) const = default;
};

struct LaneHealth {
  enum class State : uint8_t { starting, serving, away };
  LaneId lane;
  State state = State::starting;
  bool ready = false;
  std::string why = {};                   // it is not ready
  std::optional<Duration> away_for = {};  // if it is away
  /// Since a token crossed all its stages, if one has since the lane's last repair.
  std::optional<Duration> crossed_ago = {};
  std::string slow = {};  // as LaneNews; it may be ready all the same
};

struct HealthReport {
  bool ready = false;
  std::string why = {};  // it is not: each lane's reason, of the first few
  std::vector<LaneHealth> lanes = {};
  std::string coordinator_away = {};  // why no coordinator answers, if none does
};

struct HealthLimits {
  /// Longer than a canary's idle time, what it takes to cross, and a slow machine together.
  Duration crossing_max = std::chrono::seconds(10);
};

class Health {
 public:
  /// Lanes are there as soon as one of them, or one after them, is heard of.
  explicit Health(const HealthLimits& limits = {}) : limits_(limits) {}

  void on_news(LaneId lane, const LaneNews& news, TimePoint now);
  /// There are no more lanes than that.
  void set_most_lanes(size_t count) {
    if (lanes_.size() > count)
      lanes_.erase(lanes_.begin() + static_cast<ptrdiff_t>(count), lanes_.end());
  }
  /// A token has crossed the lane's stages, whose epoch was this.
  void on_crossing(LaneId lane, PlanEpoch epoch, TimePoint when);
  /// The connection to the lane's first rank. At first there is none.
  void on_joined(LaneId lane) { at(lane).is_joined = true; }
  void on_lost(LaneId lane) { at(lane).is_joined = false; }
  /// Empty: one answers again.
  void on_coordinator(std::string why_away) { coordinator_away_ = std::move(why_away); }

  HealthReport report(TimePoint now) const;

 private:
  struct Lane {
    LaneHealth::State state = LaneHealth::State::starting;
    PlanEpoch epoch{0};
    bool is_joined = false;
    std::string why = {};  // it is away, or was last; never yet: empty
    std::string slow = {};
    TimePoint away_since = {};
    PlanEpoch crossed_in{0};
    TimePoint crossed_at = {};
  };
  Lane& at(LaneId lane);
  bool has_crossed(const Lane& lane) const { return lane.crossed_in == lane.epoch; }
  LaneHealth report(LaneId id, const Lane& lane, TimePoint now) const;

  HealthLimits limits_;
  std::vector<Lane> lanes_;
  std::string coordinator_away_;
};

}  // namespace chainpump::graph
