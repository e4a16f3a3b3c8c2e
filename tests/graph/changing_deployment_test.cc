// A deployment that goes on by other plans, under random deaths, hangs, failing calls and deaths of
// its coordinator. Everything of a run follows from its seed. However it goes: no lane is connected
// while a process that lives is at work in it in an older epoch; who is killed or let go of is of
// no plan in force; a change ends once, by its own plan or by the one before; and when the faults
// are over, every lane serves by the plan that is written down, and nobody else runs.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "graph/changing_deployment.h"
#include "tests/graph/random_stages.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using D = Deployment;
using Kind = D::ActionKind;

constexpr int kMaxEvents = 20000;

class RandomChanges {
 public:
  explicit RandomChanges(uint32_t seed, bool calm = false)
      : random_(seed), calm_(calm), plans_{random_plan()} {
    begin({});
  }

  /// Empty if all was well.
  std::string run() {
    carry_out(core_->start(now_));
    while (core_->phase() == D::Phase::starting && wrong_.empty()) turn();
    faults_until_ = now_ + 20s;
    while (now_ < faults_until_ && wrong_.empty()) {
      if (!calm_ && pick(10) == 0) fault();
      if (pick(12) == 0) change();
      if (!calm_ && pick(60) == 0) crash();
      turn();
    }
    for (int events = 0; wrong_.empty() && (!due_.empty() || core_->next_deadline()); ++events)
      if (events > kMaxEvents)
        return "it does not come to rest";
      else
        turn();
    if (wrong_.empty()) check_rest();
    if (wrong_.empty()) stop();
    return wrong_;
  }

  static int num_changed, num_in_place, num_given_up, num_crashes, num_repairs;

 private:
  struct Process {
    uint32_t run = 0;
    bool runs = false;
    bool hangs = false;
    bool loaded = false;
    std::set<uint32_t> takes_in = {};
    std::map<uint8_t, PlanEpoch> seen = {};  // by lane, fenced or linked
    std::set<uint8_t> at_work = {};          // lanes
    std::set<uint8_t> linked = {};           // ever
    bool took_over = false;
  };
  struct Due {
    D::Event event;
    std::optional<std::pair<uint32_t, uint32_t>> of;
    int coordinator = 0;
  };

  int pick(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }
  void wrong(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  Plan random_plan() {
    Plan plan = random_stages(random_, 4);
    int32_t layer = 0;
    for (StagePlan& stage : plan.stages) {
      const auto left = static_cast<int32_t>(&plan.stages.back() - &stage);
      stage.layer_begin = layer;
      layer = left == 0 ? 8 : std::min<int32_t>(8 - left, layer + 1 + pick(3));
      stage.layer_end = layer;
    }
    plan.model_path = "m";
    plan.failover_restarts = 100000;
    return plan;
  }

  const Plan& plan() const { return plans_[record_.plan_number]; }

  void begin(const DeploymentRecord& record) {
    record_ = record;
    core_ = std::make_unique<ChangingDeployment>(plans_[record.plan_number], DeploymentLimits{},
                                                 record);
  }

  // ------------------------------------------------------------------- time and events

  void turn() {
    const auto deadline = core_->next_deadline();
    const auto next = due_.begin();
    if (next != due_.end() && (!deadline || next->first <= *deadline)) {
      now_ = std::max(now_, next->first);
      const Due due = next->second;
      due_.erase(next);
      if (due.coordinator != coordinator_) return;
      if (due.of && processes_[due.of->first].run != due.of->second) return;
      return carry_out(core_->step(due.event, now_));
    }
    now_ = deadline ? std::max(now_, *deadline) : now_ + 50ms;
    if (deadline) carry_out(core_->on_time(now_));
  }

  void answer(ProcessId id, D::Event event) {
    const Process& process = processes_[id.value];
    if (!process.runs || process.hangs) return;
    due_.emplace(now_ + 1ms * (1 + pick(40)),
                 Due{std::move(event), std::pair(id.value, process.run), coordinator_});
  }

  void end(uint32_t number, const char* how) {
    Process& process = processes_[number];
    if (!process.runs) return;
    process.runs = false;
    process.at_work.clear();
    due_.emplace(now_ + 1ms * pick(20), Due{D::Exited{ProcessId(number), how},
                                            std::pair(number, process.run), coordinator_});
  }

  // ------------------------------------------------------------------- what happens

  void fault() {
    std::vector<uint32_t> living;
    for (const auto& [number, process] : processes_)
      if (process.runs) living.push_back(number);
    if (living.empty()) return;
    const uint32_t victim = living[static_cast<size_t>(pick(static_cast<int>(living.size())))];
    const ProcessId id(victim);
    switch (pick(4)) {
      case 0:
        return end(victim, "killed");
      case 1:
        processes_[victim].hangs = true;
        due_.emplace(now_ + 700ms, Due{D::Failed{id, {ErrorCode::deadline_exceeded, "it hangs"}},
                                       std::pair(victim, processes_[victim].run), coordinator_});
        return;
      case 2:
        return carry_out(core_->step(D::LinkBroken{id, {ErrorCode::disconnected, "broken"}}, now_));
      default:
        return carry_out(core_->step(D::Unreachable{id, {ErrorCode::disconnected, "lost"}}, now_));
    }
  }

  void change() {
    Plan next = pick(3) == 0 ? plan() : random_plan();
    next.failover_window = 1s * (1 + pick(60));
    if (!core_->may_change(next).ok()) return;
    plans_.resize(record_.plan_number + 1);
    plans_.push_back(next);
    is_changing_ = true;
    const bool in_place = !ranks_differ(plan(), next);
    num_in_place += in_place ? 1 : 0;
    carry_out(core_->change(next, now_));
  }

  /// The next one comes at once, and knows what is written.
  void crash() {
    if (core_->phase() != D::Phase::serving) return;
    ++num_crashes;
    ++coordinator_;
    is_changing_ = false;
    begin(DeploymentRecord(record_));
    if (const Status good = check(record_, plan()); !good.ok()) return wrong(good.error().message);
    std::vector<ProcessId> living;
    for (const auto& [number, process] : processes_)
      if (process.runs) living.push_back(ProcessId(number));
    carry_out(core_->adopt(DeploymentRecord(record_), living, now_));
    for (const ProcessId id : living) {
      answer(id, D::Greeted{id});
      if (processes_[id.value].hangs)
        due_.emplace(now_ + 700ms,
                     Due{D::Failed{id, {ErrorCode::deadline_exceeded, "it hangs"}},
                         std::pair(id.value, processes_[id.value].run), coordinator_});
    }
  }

  // ------------------------------------------------------------------- actions

  void carry_out(const std::vector<D::Action>& actions) {
    record_ = core_->record();
    for (const D::Action& action : actions) carry_out(action);
  }

  void carry_out(const D::Action& action) {
    Process& process = processes_[action.process.value];
    switch (action.kind) {
      case Kind::spawn:
        if (process.runs) wrong("a number is used twice");
        process = {.run = process.run + 1, .runs = true};
        return answer(action.process, D::Greeted{action.process});
      case Kind::load:
        return load(action);
      case Kind::fence:
        return fence(action);
      case Kind::connect:
        return connect(action);
      case Kind::resume:
        return answer(action.process, D::Resumed{action.lane, action.epoch});
      case Kind::repairing:
        ++num_repairs;
        if (calm_) wrong("a repair where nothing went wrong");
        return;
      case Kind::kill:
      case Kind::shutdown:
        return end(action.process.value, "killed");
      case Kind::take_in:
        return take_in(action);
      case Kind::copy:
        if (!processes_[action.newcomer.value].takes_in.contains(action.part))
          wrong("a copy to one that waits for none");
        return fallible(action, D::Copied{action.process, action.move, action.part});
      case Kind::finish:
        if (!process.at_work.empty()) wrong("the rest is copied while a lane is at work");
        return fallible(action, D::Finished{action.process, action.move});
      case Kind::switched:
        return;
      case Kind::changed:
      case Kind::not_changed:
        return end_change(action);
      case Kind::fail:
        return wrong("it failed: " + action.error.message);
      case Kind::stopped:
        for (const auto& [number, each] : processes_)
          if (each.runs) wrong("stopped before all have left");
        stopped_ = true;
        return;
      case Kind::ready:
        return wrong("says that it is ready");
      case Kind::serve:
      case Kind::lane_serving:
      case Kind::moved:
      case Kind::not_moved:
        return;
    }
  }

  void load(const D::Action& action) {
    Process& process = processes_[action.process.value];
    if (!process.runs) return;
    if (now_ < faults_until_ && !calm_ && pick(30) == 0)
      return answer(action.process, D::Failed{action.process, {ErrorCode::no_room, "no room"}});
    D::Loaded loaded{action.process, "same", {}};
    for (const LaneId lane : lanes_of(core_->plan_of(action.process), action.place))
      loaded.lanes.push_back({lane,
                              {.epoch = process.seen[lane.value],
                               .linked = process.linked.contains(lane.value) || process.took_over,
                               .at_work = process.at_work.contains(lane.value)}});
    process.loaded = true;
    answer(action.process, std::move(loaded));
  }

  void fence(const D::Action& action) {
    Process& process = processes_[action.process.value];
    if (!process.runs || process.hangs) return;
    process.seen[action.lane.value] = action.epoch;
    process.at_work.erase(action.lane.value);
    if (!process.takes_in.empty()) process.took_over = true;
    answer(action.process, D::Fenced{action.process, action.lane, action.epoch});
  }

  void connect(const D::Action& action) {
    const uint8_t lane = action.lane.value;
    for (const auto& [number, other] : processes_)
      if (other.runs && !other.hangs && other.at_work.contains(lane) &&
          other.seen.at(lane) != action.epoch)
        wrong(fmt::format("lane {} is connected while process {} is at work in it", lane, number));
    if (!core_->is_in_force(action.process)) wrong("a connect of no rank in force");
    Process& process = processes_[action.process.value];
    if (!process.runs || process.hangs) return;
    process.seen[lane] = action.epoch;
    process.linked.insert(lane);
    process.at_work.insert(lane);
    answer(action.process, D::Connected{action.process, action.lane, action.epoch});
  }

  void take_in(const D::Action& action) {
    Process& process = processes_[action.process.value];
    if (core_->is_in_force(action.process) || !process.linked.empty())
      wrong("one that is not new takes in");
    process.takes_in.insert(action.part);
    fallible(action, D::TakingIn{action.process, action.move, action.part});
  }

  void fallible(const D::Action& action, D::Event well) {
    const Error error{ErrorCode::disconnected, "no link"};
    if (now_ < faults_until_ && !calm_ && pick(40) == 0)
      return answer(action.process, D::MoveFailed{action.process, action.move, error});
    answer(action.process, std::move(well));
  }

  void end_change(const D::Action& action) {
    if (!std::exchange(is_changing_, false)) wrong("the end of no change");
    const bool done = action.kind == Kind::changed;
    ++(done ? num_changed : num_given_up);
    if (done != action.error.message.empty()) wrong("a change that fails says why");
    if (calm_ && !done) wrong("given up where nothing went wrong: " + action.error.message);
    if (!done) return;
    if (record_.plan_number + 1 != plans_.size()) wrong("changed, and not to that plan");
    for (int32_t i = 0; i < num_lanes(plan()); ++i)
      if (core_->state(LaneId(static_cast<uint8_t>(i))) != LaneRepair::State::serving)
        wrong("changed, and a lane does not serve");
  }

  // ------------------------------------------------------------------- at the end

  void check_rest() {
    if (!core_->is_settled() || is_changing_) return wrong("a change has no end");
    if (core_->phase() != D::Phase::serving) return wrong("it does not serve");
    for (int32_t i = 0; i < num_lanes(plan()); ++i)
      if (core_->state(LaneId(static_cast<uint8_t>(i))) != LaneRepair::State::serving)
        wrong(fmt::format("lane {} does not serve", i));
    for (const auto& [number, process] : processes_) {
      const bool is_expected = core_->is_in_force(ProcessId(number)) &&
                               !record_.processes[number - record_.first_number].is_spare;
      if (process.runs != is_expected)
        wrong(fmt::format("process {} {}", number, process.runs ? "still runs" : "is not there"));
    }
  }

  void stop() {
    carry_out(core_->step(D::StopRequested{}, now_));
    for (int events = 0; !stopped_ && wrong_.empty(); ++events) {
      if (events > kMaxEvents || (due_.empty() && !core_->next_deadline()))
        return wrong("it does not stop");
      turn();
    }
  }

  std::mt19937 random_;
  const bool calm_;
  std::vector<Plan> plans_;  // by the number of changes
  DeploymentRecord record_;
  std::unique_ptr<ChangingDeployment> core_;
  std::map<uint32_t, Process> processes_;
  std::multimap<TimePoint, Due> due_;
  TimePoint now_;
  TimePoint faults_until_;
  int coordinator_ = 0;
  bool is_changing_ = false;
  bool stopped_ = false;
  std::string wrong_;
};

int RandomChanges::num_changed, RandomChanges::num_in_place, RandomChanges::num_given_up,
    RandomChanges::num_crashes, RandomChanges::num_repairs;

}  // namespace

BOOST_AUTO_TEST_SUITE(changing_deployment)

BOOST_AUTO_TEST_CASE(plans_change_whatever_dies_meanwhile) {
  for (uint32_t seed = 0; seed < 600; ++seed) {
    const std::string wrong = RandomChanges(seed).run();
    BOOST_REQUIRE_MESSAGE(wrong.empty(), "seed " << seed << ": " << wrong);
  }
  BOOST_TEST_MESSAGE(RandomChanges::num_changed
                     << " changed, " << RandomChanges::num_in_place << " in place, "
                     << RandomChanges::num_given_up << " given up, " << RandomChanges::num_crashes
                     << " coordinators died, " << RandomChanges::num_repairs << " repairs");
  BOOST_TEST(RandomChanges::num_changed > 600);
  BOOST_TEST(RandomChanges::num_in_place > 100);
  BOOST_TEST(RandomChanges::num_given_up > 600);
  BOOST_TEST(RandomChanges::num_crashes > 600);
  BOOST_TEST(RandomChanges::num_repairs > 600);
}

BOOST_AUTO_TEST_CASE(where_nothing_goes_wrong_no_change_does) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const std::string wrong = RandomChanges(seed, true).run();
    BOOST_REQUIRE_MESSAGE(wrong.empty(), "seed " << seed << ": " << wrong);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
