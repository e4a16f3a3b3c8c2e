// A deployment under random deaths, hangs, broken links, lost and late answers. Everything of a run
// follows from its seed. However it goes: nobody is told to connect before all that had links of
// the lane have been fenced in that epoch, or the first to resume before all have connected; lanes
// that no fault has touched see no action; and when the faults are over every lane serves again,
// unless more has happened than the plan allows.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <random>
#include <utility>

#include "graph/deployment.h"
#include "tests/graph/random_stages.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using D = Deployment;
using Kind = D::ActionKind;

constexpr int kMaxEvents = 20000;

class RandomDeployment {
 public:
  explicit RandomDeployment(uint32_t seed)
      : random_(seed),
        plan_(make_plan()),
        core_(plan_, DeploymentLimits{}),
        processes_(static_cast<size_t>(num_numbers(plan_))),
        lanes_(static_cast<size_t>(num_lanes(plan_))) {}

  /// Empty if all was well.
  std::string run() {
    carry_out(core_.start(now_));
    while (core_.phase() == D::Phase::starting && wrong_.empty()) turn(false);
    faults_until_ = now_ + 20s;
    while (now_ < faults_until_ && wrong_.empty() && core_.phase() == D::Phase::serving) {
      if (pick(8) == 0) fault();
      if (pick(12) == 0) move();
      turn(true);
    }
    int events = 0;
    while ((!due_.empty() || core_.next_deadline()) && wrong_.empty())
      if (++events > kMaxEvents)
        return "it does not come to rest";
      else
        turn(false);
    if (!wrong_.empty()) return wrong_;
    if (is_moving_) return "a move has no end";
    if (core_.phase() == D::Phase::stopped) return check_failed();
    for (size_t lane = 0; lane < lanes_.size(); ++lane)
      if (core_.state(lane_of(lane)) != LaneRepair::State::serving)
        return fmt::format("lane {} does not serve", lane);
    deliver(D::StopRequested{});
    for (events = 0; core_.phase() != D::Phase::stopped && wrong_.empty(); ++events) {
      if (events > kMaxEvents || (due_.empty() && !core_.next_deadline()))
        return "it does not stop";
      turn(false);
    }
    return wrong_;
  }

  static int num_repairs, num_failed, num_moves_asked, num_moved;

 private:
  struct Process {
    uint32_t run = 0;  // how many have had the number
    bool runs = false;
    bool hangs = false;
    bool killed = false;
    bool takes_in = false;
    bool has_all = false;  // that was copied to it
    std::map<uint8_t, PlanEpoch> linked = {}, fenced = {},
                                 connected = {};  // by lane: the last epoch
  };
  struct Lane {
    bool touched = false;
    PlanEpoch epoch{1};
    PlanEpoch resumed{};
    std::pair<uint32_t, uint32_t> first;  // process and run
    PlanEpoch first_since{1};
  };
  struct Due {
    D::Event event;
    std::optional<std::pair<uint32_t, uint32_t>> of;  // void if another process has the number
    bool by_process = false;                          // not if that hangs
  };

  int pick(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }
  static LaneId lane_of(size_t index) { return LaneId(static_cast<uint8_t>(index)); }

  Plan make_plan() {
    Plan plan = random_stages(random_, 5);
    constexpr int32_t kRestarts[] = {0, 1, 5, 10000};
    plan.failover_restarts = kRestarts[std::min(3, pick(16))];
    return plan;
  }

  void wrong(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  // ------------------------------------------------------------------- time and events

  void turn(bool with_faults) {
    const auto deadline = core_.next_deadline();
    const auto next = due_.begin();
    if (next != due_.end() && (!deadline || next->first <= *deadline)) {
      now_ = std::max(now_, next->first);
      const Due due = next->second;
      due_.erase(next);
      if (due.of) {
        Process& from = processes_[due.of->first];
        if (due.of->second != from.run && !is_of_lane(due.event)) return;
        if (due.by_process && from.hangs && due.of->second == from.run) return;
      }
      return deliver(due.event);
    }
    if (!deadline) {
      now_ = now_ + 100ms;
      return;
    }
    now_ = std::max(now_, *deadline);
    if (with_faults && pick(10) == 0) now_ = now_ + 1ms * pick(3000);  // a late look
    carry_out(core_.on_time(now_));
  }

  /// These carry an epoch, so they may come late, even from a process that is no more.
  static bool is_of_lane(const D::Event& event) {
    return std::holds_alternative<D::Fenced>(event) ||
           std::holds_alternative<D::Connected>(event) ||
           std::holds_alternative<D::Resumed>(event) ||
           std::holds_alternative<D::CallFailed>(event);
  }

  void answer(ProcessId process, D::Event event) {
    const bool faulty = now_ < faults_until_;
    if (faulty && pick(40) == 0) return;  // lost
    const Duration after = faulty && pick(20) == 0 ? 1ms * pick(6000) : 1ms * (1 + pick(60));
    const Process& from = processes_[process.value];
    due_.emplace(now_ + after, Due{std::move(event), std::pair(process.value, from.run), true});
  }

  void deliver(const D::Event& event) {
    const auto note = [](PlanEpoch& last, PlanEpoch epoch) { last = std::max(last, epoch); };
    if (const auto* fenced = std::get_if<D::Fenced>(&event))
      note(processes_[fenced->process.value].fenced[fenced->lane.value], fenced->epoch);
    if (const auto* connected = std::get_if<D::Connected>(&event))
      note(processes_[connected->process.value].connected[connected->lane.value], connected->epoch);
    if (const auto* resumed = std::get_if<D::Resumed>(&event))
      note(lanes_[resumed->lane.value].resumed, resumed->epoch);
    if (const auto* exited = std::get_if<D::Exited>(&event))
      processes_[exited->process.value].runs = false;
    carry_out(core_.step(event, now_));
  }

  // ------------------------------------------------------------------- faults

  void touch(ProcessId process) {
    for (uint32_t rank = 0; rank < static_cast<uint32_t>(num_ranks(plan_)); ++rank)
      if (core_.process_in(RankId(rank)) == process)
        for (const LaneId lane : lanes_of(plan_, RankId(rank))) lanes_[lane.value].touched = true;
  }

  void move() {
    const RankId place(static_cast<uint32_t>(pick(num_ranks(plan_) + 1)));
    if (!core_.may_move(place).ok()) return;
    ++num_moves_asked;
    is_moving_ = true;
    for (const LaneId lane : lanes_of(plan_, place)) lanes_[lane.value].touched = true;
    deliver(D::MoveRequested{place});
  }

  void end(ProcessId process, const char* how) {
    const Process& gone = processes_[process.value];
    if (!gone.runs) return;
    touch(process);
    due_.emplace(now_ + 1ms * pick(20),
                 Due{D::Exited{process, how}, std::pair(process.value, gone.run)});
  }

  void fault() {
    const ProcessId victim(static_cast<uint32_t>(pick(num_numbers(plan_))));
    Process& process = processes_[victim.value];
    if (!process.runs || process.killed) return;
    const Error error{ErrorCode::disconnected, "broken"};
    switch (pick(6)) {
      case 0:
      case 1:
        process.killed = true;
        return end(victim, "killed");
      case 2:
        process.hangs = true;
        return;
      case 3:
        touch(victim);
        return deliver(D::LinkBroken{victim, error});
      case 4:
        touch(victim);
        return deliver(D::Failed{victim, error});
      default:
        touch(victim);
        return deliver(D::Unreachable{victim, error});
    }
  }

  // ------------------------------------------------------------------- actions

  void carry_out(const std::vector<D::Action>& actions) {
    for (const D::Action& action : actions) {
      Process& process = processes_[action.process.value];
      switch (action.kind) {
        case Kind::spawn:
          if (process.runs) wrong("a number is used twice");
          process = {.run = process.run + 1, .runs = true};
          answer(action.process, D::Greeted{action.process});
          break;
        case Kind::load:
          load(action);
          break;
        case Kind::fence:
          check_lane(action);
          if (!process.linked.contains(action.lane.value) && !process.has_all)
            wrong("a fence for one without links");
          answer(action.process, D::Fenced{action.process, action.lane, action.epoch});
          break;
        case Kind::connect:
          connect(action);
          break;
        case Kind::resume:
          resume(action);
          break;
        case Kind::lane_serving:
          check_serving(action);
          break;
        case Kind::serve:
          for (size_t i = 0; i < lanes_.size(); ++i) lanes_[i].first = first_of(lane_of(i));
          break;
        case Kind::repairing:
          if (plan_.failover_restarts == 0 || failure_) wrong("a repair that may not be");
          if (action.error.message.empty()) wrong("a repair of nothing");
          break;
        case Kind::fail:
          if (failure_) wrong("failed twice");
          failure_ = action.error;
          break;
        case Kind::shutdown:
          if (!process.hangs) end(action.process, "exit 0");
          break;
        case Kind::kill:
          touch(action.process);
          if (!process.killed) end(action.process, "killed");
          process.killed = true;
          break;
        case Kind::take_in:
        case Kind::copy:
        case Kind::finish:
        case Kind::moved:
        case Kind::not_moved:
          carry_out_move(action);
          break;
        case Kind::ready:
        case Kind::switched:
        case Kind::changed:
        case Kind::not_changed:
          wrong("of a change, and there was none");
          break;
        case Kind::stopped:
          for (const Process& each : processes_)
            if (each.runs) wrong("stopped before all have left");
          break;
      }
    }
  }

  void load(const D::Action& action) {
    answer(action.process, D::LoadProgressed{action.process});
    if (now_ < faults_until_ && pick(20) == 0)
      return answer(action.process, D::Failed{action.process, {ErrorCode::no_room, "no room"}});
    answer(action.process, D::Loaded{action.process, "same"});
  }

  void carry_out_move(const D::Action& action) {
    Process& process = processes_[action.process.value];
    if (action.kind == Kind::take_in) {
      if (process.takes_in || !process.linked.empty()) wrong("one that is not new takes in");
      process.takes_in = true;
      move_answer(action, D::TakingIn{action.process, action.move});
    } else if (action.kind == Kind::copy) {
      if (!processes_[action.newcomer.value].takes_in) wrong("a copy to one that waits for none");
      newcomer_ = action.newcomer;
      answer(action.process, D::CopyProgressed{action.process, action.move});
      move_answer(action, D::Copied{action.process, action.move});
    } else if (action.kind == Kind::finish) {
      finish(action);
    } else {
      end_move(action);
    }
  }

  void move_answer(const D::Action& action, D::Event well) {
    const Error error{ErrorCode::disconnected, "no link"};
    if (now_ < faults_until_ && pick(20) == 0)
      return answer(action.process, D::MoveFailed{action.process, action.move, error});
    answer(action.process, std::move(well));
  }

  void finish(const D::Action& action) {
    for (const LaneId lane : lanes_of(plan_, action.place))
      if (processes_[action.process.value].fenced[lane.value] != core_.epoch(lane))
        wrong("the rest is copied while its lanes are at work");
    processes_[newcomer_.value].has_all = true;
    move_answer(action, D::Finished{action.process, action.move});
  }

  void end_move(const D::Action& action) {
    if (!std::exchange(is_moving_, false)) wrong("the end of no move");
    const bool done = action.kind == Kind::moved;
    if (done == !action.error.message.empty()) wrong("a move that fails says why");
    if (!done) return;
    ++num_moved;
    if (core_.process_in(action.place) != action.process) wrong("moved to somebody else");
    for (const LaneId lane : lanes_of(plan_, action.place))
      if (core_.state(lane) != LaneRepair::State::serving)
        wrong("moved, and a lane does not serve");
  }

  void connect(const D::Action& action) {
    check_lane(action);
    const uint8_t lane = action.lane.value;
    for (const StagePlan& stage : plan_.stages) {
      const ProcessId id = core_.process_in(rank_at(plan_, action.lane, stage.index));
      Process& other = processes_[id.value];
      const bool before = other.linked.contains(lane) && other.linked[lane] != action.epoch;
      if (before && other.fenced[lane] != action.epoch)
        wrong(fmt::format("process {} connects, process {} is not fenced", action.process, id));
      if (other.killed && !other.runs) wrong("one is connected that has gone");
    }
    processes_[action.process.value].linked[lane] = action.epoch;
    if (now_ < faults_until_ && pick(20) == 0)
      return answer(
          action.process,
          D::CallFailed{
              action.process, action.lane, action.epoch, {ErrorCode::internal, "no link"}});
    answer(action.process, D::Connected{action.process, action.lane, action.epoch});
  }

  void resume(const D::Action& action) {
    check_lane(action);
    for (const StagePlan& stage : plan_.stages) {
      const ProcessId id = core_.process_in(rank_at(plan_, action.lane, stage.index));
      if (processes_[id.value].connected[action.lane.value] != action.epoch)
        wrong(fmt::format("lane {} resumes, process {} is not connected", action.lane, id));
    }
    if (action.process != core_.process_in(rank_at(plan_, action.lane, StageIndex(0))))
      wrong("another than the first is to resume");
    answer(action.process, D::Resumed{action.lane, action.epoch});
  }

  void check_lane(const D::Action& action) {
    Lane& lane = lanes_[action.lane.value];
    if (core_.phase() == D::Phase::starting) return;
    if (!lane.touched) wrong(fmt::format("lane {} was not touched", action.lane));
    if (action.epoch < lane.epoch) wrong("the epoch goes back");
    lane.epoch = action.epoch;
  }

  std::pair<uint32_t, uint32_t> first_of(LaneId lane) const {
    const ProcessId first = core_.process_in(rank_at(plan_, lane, StageIndex(0)));
    return {first.value, processes_[first.value].run};
  }

  void check_serving(const D::Action& action) {
    check_lane(action);
    ++num_repairs;
    Lane& lane = lanes_[action.lane.value];
    if (lane.resumed != action.epoch) wrong("it serves, but the first has not resumed");
    const auto first = first_of(action.lane);
    if (first != lane.first) lane.first_since = action.epoch;
    lane.first = first;
    if (action.first_since != lane.first_since)
      wrong(fmt::format("first since {}, not {}", action.first_since, lane.first_since));
    lane.touched = std::any_of(plan_.stages.begin(), plan_.stages.end(), [&](const auto& stage) {
      const ProcessId id = core_.process_in(rank_at(plan_, action.lane, stage.index));
      return processes_[id.value].hangs || processes_[id.value].killed;
    });
  }

  std::string check_failed() {
    ++num_failed;
    if (!failure_) return "it has stopped without a reason";
    if (plan_.failover_restarts > 100) return "it has failed: " + failure_->message;
    return {};
  }

  std::mt19937 random_;
  Plan plan_;
  D core_;
  TimePoint now_;
  TimePoint faults_until_;
  std::vector<Process> processes_;
  std::vector<Lane> lanes_;
  std::multimap<TimePoint, Due> due_;
  ProcessId newcomer_;
  std::optional<Error> failure_;
  bool is_moving_ = false;
  std::string wrong_;
};

int RandomDeployment::num_repairs = 0;
int RandomDeployment::num_failed = 0;
int RandomDeployment::num_moves_asked = 0;
int RandomDeployment::num_moved = 0;

}  // namespace

BOOST_AUTO_TEST_SUITE(deployment_random)

BOOST_AUTO_TEST_CASE(comes_back_whatever_happens) {
  for (uint32_t seed = 1; seed <= 5000; ++seed) {
    const std::string wrong = RandomDeployment(seed).run();
    BOOST_TEST_REQUIRE(wrong.empty(), "seed " << seed << ": " << wrong);
  }
  BOOST_TEST(RandomDeployment::num_repairs > 10000);
  BOOST_TEST(RandomDeployment::num_failed > 100);
  BOOST_TEST(RandomDeployment::num_moved > 1000);
  BOOST_TEST(RandomDeployment::num_moves_asked > 2 * RandomDeployment::num_moved);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
