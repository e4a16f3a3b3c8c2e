// How one lane comes back to work after one of its ranks has gone, step by step: the coordinator's
// state machine of a lane, part of graph/deployment.h, which fills its places with processes.
//
//   state        what ends it                                 what is asked then
//   starting     serve(): all_connected()                     -
//   adopting     all are there, and at work in its epoch      serving
//   serving      -
//   any, by begin(): fencing                                  fence, of all that have links
//   fencing      all those have fenced, every place is taken  connect, of all
//   connecting   all have connected                           resume, of the first
//   resuming     resumed                                      serving
//
//   Who does not answer a fence or a resume in time is hung(). A link that does not open, or a call
//   that failed though no death has explained it for a while: must_begin_anew(), with a new epoch.
//   (Links have two ends: only the next fence shows which of them hangs.)
//
// A lane that an earlier coordinator had is adopting at first, if it served as far as is known, or
// else begins anew at once; who is found with links is then fenced as soon as it is found.
//
// Each begin() has an epoch of its own; an answer of another one is void. A place is empty, taken
// by a loaded process that knows nothing of the lane yet, or linked: told to connect, in any epoch.
// Pure; one thread. What it asks for lies in `asks` until the caller takes it.
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/deployment_record.h"

namespace chainpump::graph {

struct LaneRepairLimits {
  // Long steps may be under way. Hangs are found otherwise (graph/failure_detector.h), and sooner.
  Duration fence_max = std::chrono::seconds(60);
  Duration connect_max = std::chrono::seconds(5);
  Duration connect_more = std::chrono::milliseconds(250);  // for each more lane that a rank serves
  Duration resume_max = std::chrono::seconds(60);
  // A broken connection or link is most often a death, of the rank itself or of its neighbour,
  // whose own news says more; it comes within milliseconds, on a busy machine some hundreds of
  // them.
  Duration death_news_max = std::chrono::milliseconds(700);
  Duration late_look_max = std::chrono::seconds(1);  // later than that, the looker was stopped too
};

/// What a process says of a lane that it may have served for an earlier coordinator.
struct LaneSeen {
  PlanEpoch epoch;       // the newest that it has seen
  bool linked = false;   // it was told to connect, in any epoch, or has what was copied to it
  bool at_work = false;  // with open links of that epoch, and resumed
};

class LaneRepair {
 public:
  enum class State : uint8_t { starting, adopting, serving, fencing, connecting, resuming };
  enum class AskKind : uint8_t { fence, connect, resume, serving };
  struct Ask {
    AskKind kind;
    StageIndex stage;  // whose rank; of `serving` the first
  };
  /// What kept a lane from being connected; the message goes on after the rank's name.
  struct Trouble {
    StageIndex stage;
    Error error;
  };

  LaneRepair(int32_t num_stages, PlanEpoch epoch, const LaneRepairLimits& limits);
  /// A lane of an earlier coordinator, as it was when that was last written down; adopting, of whom
  /// nobody is there yet.
  LaneRepair(int32_t num_stages, const DeploymentRecord::Lane& was, const LaneRepairLimits& limits);
  DeploymentRecord::Lane record() const {
    const bool serves = state_ == State::serving || state_ == State::adopting;
    return {epoch_, first_since_, first_is_new_, serves};
  }

  // Places.
  void take(StageIndex stage);   // a loaded process is there now, a new one
  void leave(StageIndex stage);  // nobody is there that could be asked
  /// A loaded process is there that says this of the lane. False if the lane was to be taken over
  /// as it is, and cannot: it has to begin anew. To be followed by advance().
  bool adopt(StageIndex stage, const LaneSeen& seen, TimePoint now);
  // Of a repair that has just begun: the place is about to change hands (graph/rank_move.h), so
  // that nobody connects until it has, or it is known that it does not. Who has it next has fenced,
  // too.
  void wait_for_next(StageIndex stage) { at(stage).changes = true; }
  void hand_over(StageIndex stage, TimePoint now);
  void keep(StageIndex stage, TimePoint now);

  // The start.
  void start(TimePoint deadline);  // asks for connect; every place is taken
  bool all_connected() const { return all_there() && none_awaited(); }
  void serve();

  // A repair.
  void begin(PlanEpoch epoch, TimePoint now);
  /// To be called after take(), too.
  void advance(TimePoint now);
  void on_fenced(StageIndex stage, PlanEpoch epoch, TimePoint now);
  void on_connected(StageIndex stage, PlanEpoch epoch, TimePoint now);
  void on_resumed(PlanEpoch epoch);
  void on_call_failed(StageIndex stage, PlanEpoch epoch, Error error, TimePoint now);

  /// When on_time() wants to be called.
  std::optional<TimePoint> next_deadline() const;
  /// After that one of these may say what is to be done; each is said once.
  void on_time(TimePoint now);
  std::vector<StageIndex> take_hung();
  std::optional<Trouble> take_must_begin_anew();

  std::vector<Ask> take_asks();
  State state() const { return state_; }
  PlanEpoch epoch() const { return epoch_; }
  /// The epoch in which the first rank's process that now serves the lane came to serve it.
  PlanEpoch first_since() const { return first_since_; }

 private:
  enum class Place : uint8_t { empty, taken, linked };
  struct Member {
    Place place = Place::empty;
    bool answered = false;
    bool changes = false;
    bool is_awaited() const { return place == Place::linked && !answered; }
  };
  Member& at(StageIndex stage) { return members_[static_cast<size_t>(stage.value)]; }
  void connect_all(TimePoint deadline);
  bool all_there() const;
  bool none_awaited() const;
  bool is_over(std::optional<TimePoint>& deadline, TimePoint now) const;
  void forget_trouble();
  void ask(AskKind kind, StageIndex stage) { asks_.push_back({kind, stage}); }

  LaneRepairLimits limits_;
  State state_ = State::starting;
  PlanEpoch epoch_;
  PlanEpoch first_since_;
  bool first_is_new_ = true;
  std::vector<Member> members_;  // by stage
  std::optional<TimePoint> deadline_;
  std::optional<Trouble> trouble_;
  std::optional<TimePoint> trouble_deadline_;
  std::vector<StageIndex> hung_;
  std::optional<Trouble> must_begin_anew_;
  std::vector<Ask> asks_;
};

}  // namespace chainpump::graph
