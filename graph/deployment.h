// The coordinator's decisions, as a pure core: it brings a plan's ranks up, keeps their places
// filled, has lanes repaired when a rank has gone, and takes everything down. It is not on the
// token path. The shell (actors/coordinator) carries out the actions and reports what happened as
// events; time is handed in.
//
// A place is a rank of the plan; a process, with a number of its own, is what the agent runs. At
// first place i is that of process i; standbys have the numbers after those. When a process has
// ended, one of its number is started again. A standby has loaded what its stage's only rank loads,
// and waits; it takes the place of one that ends at once, and who is started then is the standby.
//
//   process   event that ends it     what is done then
//   starting  greeted                load
//   loading   loaded                 at the start, when all are: the lanes connect; later: a place
//                                    is taken, if it is no standby
//   loaded    -
//   ending    exited                 as below (it was killed, because it failed, hung or was late)
//   leaving   exited                 when all have left: stopped
//
//   phase     event                                     what is done
//   starting  failed, exited, or a deadline has passed  fail
//             every lane is connected                   serve
//   serving   failed, or a deadline has passed          kill
//             exited                                    spawn again, the place's lanes begin a
//                                                       repair (graph/lane_repair.h), with a new
//                                                       epoch
//             a link broke, and no death explains it    the lanes of that place begin a repair
//             a process cannot be started                fail
//             a process is delayed: its node is away     a standby that has loaded takes its place;
//                                                        else it is waited for, to a limit: fail
//             the plan's failover_restarts such ends within its failover_window, and one more: fail
//   any       stop requested, fail                      shutdown, and kill at the deadline
//
// Lanes that the place does not serve see nothing of this.
//
// One more number than the plan has processes is there for whoever a rank is moved to, on demand
// (graph/rank_move.h); who has it is the spare, in no place. Places, standbys and the spare change
// numbers with every move.
//
// A coordinator that takes over from one that died begins with adopt() in place of start(), in the
// phase serving. Each process that lives is starting: it is greeted and told to load, which one
// that has loaded already answers at once, and says what it knows of its lanes. A lane that was
// serving as far as is written, and whose ranks all say the same, serves on and sees no action; any
// other begins a repair. Who has died meanwhile is an end like any other.
// Pure; one thread.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/recent.h"
#include "base/result.h"
#include "graph/deployment_limits.h"
#include "graph/deployment_record.h"
#include "graph/lane_repair.h"
#include "graph/plan.h"
#include "graph/plan_change.h"
#include "graph/rank_move.h"

namespace chainpump::graph {

class Deployment {
 public:
  // Events. Those of a process are of the one that has the number now.
  struct Greeted {
    ProcessId process;
  };
  struct LoadProgressed {
    ProcessId process;
  };
  struct Loaded {
    ProcessId process;
    std::string numerics_id;
    std::vector<std::pair<LaneId, LaneSeen>> lanes = {};  // that it has seen before
  };
  struct Fenced {
    ProcessId process;
    LaneId lane;
    PlanEpoch epoch;
  };
  struct Connected {
    ProcessId process;
    LaneId lane;
    PlanEpoch epoch;
  };
  struct Resumed {
    LaneId lane;
    PlanEpoch epoch;
  };
  struct CallFailed {
    ProcessId process;
    LaneId lane;
    PlanEpoch epoch;
    Error error;
  };  // a connect or a resume, which is nobody's fault yet
  struct LinkBroken {
    ProcessId process;
    Error error;
    bool is_no_death = false;  // both its ends are known to work: there is no news to wait for
  };  // of a lane at work; whose fault is not known, and told again while it is so
  struct Unreachable {
    ProcessId process;
    Error error;
  };  // a call was lost with its connection: most likely it has died
  struct Failed {
    ProcessId process;
    Error error;
  };  // it said so itself
  struct Exited {
    ProcessId process;
    std::string how;
  };  // "killed by signal 9"
  struct NotStarted {
    ProcessId process;
    Error error;
  };  // there never was one, and no other can be: its agent is gone, or has no room
  struct Delayed {
    ProcessId process;
    Error error;
  };  // there is none yet, since its node is away: the agent goes on trying
  struct CannotGoOn {
    Error error;
  };  // the coordinator itself, which cannot write down what it is about to do
  struct StopRequested {};
  struct MoveRequested {
    RankId place;
  };  // to another process; may_move()
  struct TakingIn {
    ProcessId process;
    uint32_t move;
    uint32_t part = 0;
    std::string address = {};  // where; the shell's
    uint16_t port = 0;
  };  // it waits for what is copied to it
  struct CopyProgressed {
    ProcessId process;
    uint32_t move;
  };
  struct Copied {
    ProcessId process;
    uint32_t move;
    uint32_t part = 0;
  };  // but for a little, and what is added meanwhile
  struct Finished {
    ProcessId process;
    uint32_t move;
  };  // copied all
  struct MoveFailed {
    ProcessId process;
    uint32_t move;
    Error error;
  };  // one of these calls
  using Event = std::variant<Greeted, LoadProgressed, Loaded, Fenced, Connected, Resumed,
                             CallFailed, LinkBroken, Unreachable, Failed, Exited, NotStarted,
                             Delayed, CannotGoOn, StopRequested, MoveRequested, TakingIn,
                             CopyProgressed, Copied, Finished, MoveFailed>;

  enum class ActionKind : uint8_t {
    spawn,
    load,
    fence,
    connect,
    resume,
    serve,         // for the whole deployment: every lane is connected, or was once; once
    lane_serving,  // a lane serves again
    repairing,     // what has gone, and is being replaced or linked again
    fail,          // for the whole deployment: tell whoever waits why; at most once
    shutdown,
    kill,
    stopped,    // for the whole deployment: every process has left; nothing follows
    take_in,    // these three of a move; the newcomer
    copy,       // the rank: to the newcomer
    finish,     // the rank
    moved,      // the end of a move: its lanes serve with the newcomer
    not_moved,  // or the rank has kept its place
    ready,      // of start_beside(): every process has loaded
    // These three of graph/changing_deployment.h alone:
    switched,     // what is asked from here on is by the new plan
    changed,      // every lane serves by it
    not_changed,  // or the deployment goes on by the old one
  };
  struct Action {
    ActionKind kind;
    ProcessId process{};      // with lane_serving the lane's first
    RankId place{};           // with load what it is to be; where, with those of a lane or move
    LaneId lane{};            // with fence, connect, resume, lane_serving
    PlanEpoch epoch{};        // likewise
    PlanEpoch first_since{};  // with lane_serving: since when this process is the lane's first
    ProcessId newcomer{};     // with copy
    uint32_t move = 0;        // with what is asked for a move: its number
    std::optional<KvRoute> route = {};  // with take_in and copy of a change: what is copied,
    uint32_t part = 0;                  // as which of its parts,
    uint32_t parts = 1;                 // of how many that the newcomer takes in
    Error error{};                      // with fail, repairing, not_moved, not_changed
  };

  enum class Phase : uint8_t { starting, serving, stopping, stopped };

  /// `first_number`: of its processes; the others follow.
  Deployment(const Plan& plan, const DeploymentLimits& limits, uint32_t first_number = 0);

  /// Spawns every process. Called once, first.
  std::vector<Action> start(TimePoint now);
  /// Or this: `record` is what was written last, checked against the plan, and `living` whose
  /// processes run.
  std::vector<Action> adopt(const DeploymentRecord& record, const std::vector<ProcessId>& living,
                            TimePoint now);
  /// To be written down, if it has changed, before the actions of a step are carried out.
  DeploymentRecord record() const;
  std::vector<Action> step(const Event& event, TimePoint now);
  /// To be called when next_deadline() has come. If it is called much later, its caller was stopped
  /// or starved, and the news that it waits for has waited, too: it gets another moment to come.
  std::vector<Action> on_time(TimePoint now);
  std::optional<TimePoint> next_deadline() const;
  /// Whether MoveRequested may come now. not_found: there is no such rank; overloaded: its lanes
  /// are being repaired, or a move is under way; unimplemented: to another node without a standby
  /// there.
  Status may_move(RankId place) const;

  // Of one that takes the place of another (graph/changing_deployment.h).
  /// In place of start(): every process is started and loads, and then `ready` is said, once.
  std::vector<Action> start_beside(TimePoint now);
  /// Of that one, when it is ready: its lanes connect in this epoch, and what they are told they go
  /// on with. What the one before has to say of ends is counted on.
  std::vector<Action> take_over_from(const Deployment& before, PlanEpoch epoch, TimePoint now);
  /// Of the one before, while all its lanes serve: they are fenced, in an epoch of their own, and
  /// wait.
  std::vector<Action> begin_handover(TimePoint now);
  /// They go on by themselves, after all.
  std::vector<Action> keep_lanes(TimePoint now);
  /// From here on nothing of it is repaired; who does not leave is killed after a while.
  std::vector<Action> let_go(TimePoint now);
  /// Every process is killed at once, for no fault of its own, and `stopped` said at last.
  std::vector<Action> retire(TimePoint now);
  /// Goes on by what a plan says that concerns no rank.
  void take_limits_of(const Plan& plan);

  bool owns(ProcessId process) const {
    return process.value >= first_number_ && process.value - first_number_ < processes_.size();
  }
  uint32_t first_number() const { return first_number_; }
  uint32_t end_of_numbers() const {
    return first_number_ + static_cast<uint32_t>(processes_.size());
  }
  /// That every lane does.
  bool all_serve() const;
  Phase phase() const { return phase_; }
  /// Who has the place, or is to have it once it has loaded.
  ProcessId process_in(RankId place) const { return places_[place.value].process; }
  PlanEpoch epoch(LaneId lane) const { return lanes_[lane.value].epoch(); }
  /// Since when the process of the lane's first place is that.
  PlanEpoch first_since(LaneId lane) const { return lanes_[lane.value].first_since(); }
  const std::string& numerics_id() const { return numerics_id_; }
  /// Whether `serve` was said, by this coordinator or one before.
  bool has_served() const { return has_served_; }
  /// Whether one more end now would be repaired, and none is awaited.
  bool may_lose_one(TimePoint now) const;
  LaneRepair::State state(LaneId lane) const { return lanes_[lane.value].state(); }
  const std::optional<RankMove>& move() const { return move_; }

 private:
  enum class State : uint8_t { starting, loading, loaded, ending, leaving, gone };
  /// News that waits for a death that would explain it.
  struct Suspicion {
    TimePoint deadline;
    Error error;
    bool of_link = false;
  };
  struct Process {
    RankId place;
    bool is_standby = false;
    bool is_spare = false;      // in no place; of a move, or not there
    bool is_left_over = false;  // of a move, when it is in no place: to be ended
    bool is_released = false;   // killed by a move, for no fault of its own
    State state = State::starting;
    bool has_loaded = false;  // for this coordinator or one before
    std::optional<TimePoint> deadline = {};
    std::optional<Suspicion> suspicion = {};
    std::string numerics_id = {};
    std::optional<Error> killed_because = {};
    std::optional<Error> delayed_because = {};
    std::string end_before = {};  // of the one that had the number; empty: it is the first
  };
  struct Place {
    std::string name;  // "stage 'front'"
    StageIndex stage;
    std::vector<LaneId> lanes;
    ProcessId process;
  };
  using Actions = std::vector<Action>;

  Process& at(ProcessId process);
  const Process& at(ProcessId process) const;
  Place& place_of(const Process& process) { return places_[process.place.value]; }
  ProcessId id_of(const Process& process) const;
  bool is_up(const Process& process) const;  // nobody has told it to end
  static bool is_in_place(const Process& process) {
    return !process.is_standby && !process.is_spare;
  }
  std::string name_of(const Process& process) const;
  bool all_in(State state) const;
  LaneRepair& at(LaneId lane) { return lanes_[lane.value]; }
  Process& in(LaneId lane, StageIndex stage);
  /// The stage that the process serves in the lane now; nothing if it does not.
  std::optional<StageIndex> stage_in(LaneId lane, ProcessId process) const;

  void on(const Greeted& event, TimePoint now, Actions& actions);
  void on(const LoadProgressed& event, TimePoint now, Actions& actions);
  void on(const Loaded& event, TimePoint now, Actions& actions);
  void on(const Fenced& event, TimePoint now, Actions& actions);
  void on(const Connected& event, TimePoint now, Actions& actions);
  void on(const Resumed& event, TimePoint now, Actions& actions);
  void on(const CallFailed& event, TimePoint now, Actions& actions);
  void on(const LinkBroken& event, TimePoint now, Actions& actions);
  void on(const Unreachable& event, TimePoint now, Actions& actions);
  void on(const Failed& event, TimePoint now, Actions& actions);
  void on(const Exited& event, TimePoint now, Actions& actions);
  void on(const NotStarted& event, TimePoint now, Actions& actions);
  void on(const Delayed& event, TimePoint now, Actions& actions);
  void on(const CannotGoOn& event, TimePoint now, Actions& actions);
  void on(const StopRequested& event, TimePoint now, Actions& actions);
  void on(const MoveRequested& event, TimePoint now, Actions& actions);
  void on(const TakingIn& event, TimePoint now, Actions& actions);
  void on(const CopyProgressed& event, TimePoint now, Actions& actions);
  void on(const Copied& event, TimePoint now, Actions& actions);
  void on(const Finished& event, TimePoint now, Actions& actions);
  void on(const MoveFailed& event, TimePoint now, Actions& actions);

  void look_at(Process& process, TimePoint now, Actions& actions);
  void look_at(LaneId lane, TimePoint now, Actions& actions);
  void on_unexplained(const Process& process, const Suspicion& news, TimePoint now,
                      Actions& actions);
  void on_overdue(Process& process, TimePoint now, Actions& actions);

  void spawn(Process& process, TimePoint now, Actions& actions);
  void start_lanes(TimePoint now, Actions& actions);
  bool all_compute_alike(TimePoint now, Actions& actions);
  void take_place(Process& process);
  void take_place_of_delayed(Process& standby);
  void take_place_again(Process& process, const std::vector<std::pair<LaneId, LaneSeen>>& seen,
                        TimePoint now, Actions& actions);
  void replace_gone(TimePoint now, Actions& actions);
  void serve_when_all_do(Actions& actions);
  void replace(Process& gone, const Error& why, TimePoint now, Actions& actions);
  /// `why` says so of the process, its name included.
  void end_process(Process& process, Error why, TimePoint now, Actions& actions);
  void begin_repair(const std::vector<LaneId>& lanes, TimePoint now, Actions& actions);
  void release(Process& process, TimePoint now, Actions& actions);
  void on_released_exit(Process& process, TimePoint now, Actions& actions);
  bool is_moving(ProcessId process) const;
  /// Of the move under way, in this state.
  bool is_at(RankMove::State state, uint32_t move) const {
    return move_ && move_->number == move && move_->state == state;
  }
  ProcessId newcomer_for(RankId place) const;
  void begin_copy(TimePoint now, Actions& actions);
  void note_fenced(const Fenced& event, TimePoint now, Actions& actions);
  void hand_over(TimePoint now);
  void end_move_when_served(TimePoint now, Actions& actions);
  void look_at_move(TimePoint now, Actions& actions);
  /// The rank keeps its place.
  void give_up_move(Error why, TimePoint now, Actions& actions);
  /// Whether repair may go on after this end of `what`; otherwise the deployment has failed.
  bool may_repair(const Error& why, const char* what, TimePoint now, Actions& actions);
  /// Passed, in time to be believed; otherwise the news gets another moment.
  bool is_over(std::optional<TimePoint>& deadline, TimePoint now) const;
  /// What the lanes have asked for meanwhile.
  void pass_on_asks(TimePoint now, Actions& actions);
  void fail(Error error, TimePoint now, Actions& actions);
  /// `how`: what each process is told, if anything.
  void stop(TimePoint now, Actions& actions, std::optional<ActionKind> how = ActionKind::shutdown);
  void check_stopped(Actions& actions);

  DeploymentLimits limits_;
  const uint32_t first_number_;
  bool starts_beside_ = false;  // another one, which still serves
  size_t max_restarts_;
  bool has_nodes_;  // on more machines than one
  Phase phase_ = Phase::starting;
  bool has_served_ = false;         // `serve` was said
  PlanEpoch epoch_;                 // the highest that any lane has
  std::string numerics_id_;         // of all processes, since they connect
  std::vector<Process> processes_;  // by number
  std::vector<Place> places_;       // by rank
  std::vector<LaneRepair> lanes_;
  std::vector<std::vector<RankId>> ranks_;  // by lane and stage
  Recent ends_;                             // of ranks and links
  std::optional<RankMove> move_;            // under way
  uint32_t num_moves_ = 0;
};

}  // namespace chainpump::graph
