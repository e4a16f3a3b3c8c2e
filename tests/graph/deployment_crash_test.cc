// A deployment whose coordinator dies at random moments, also between two actions of one step, and
// whose ranks die and break their links meanwhile. Everything of a run follows from its seed. Ranks
// do what real ones do and refuse what those refuse. However it goes: no epoch is used by two
// coordinators; a coordinator that takes over where nothing is wrong asks no rank for anything;
// and in the end every lane serves, and its client is attached to the process that is its first.
#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <map>
#include <optional>
#include <random>

#include "graph/deployment.h"
#include "tests/graph/random_stages.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using D = Deployment;
using Kind = D::ActionKind;

constexpr int kMaxEvents = 20000;

class CrashingCoordinators {
 public:
  explicit CrashingCoordinators(uint32_t seed)
      : random_(seed),
        plan_(make_plan()),
        ranks_(static_cast<size_t>(num_numbers(plan_))),
        lanes_(static_cast<size_t>(num_lanes(plan_))) {}

  /// Empty if all was well.
  std::string run() {
    core_.emplace(plan_, DeploymentLimits{});
    carry_out(core_->start(now_));
    for (int i = 0; i < 400 && wrong_.empty(); ++i) {
      if (pick(25) == 0) crash();
      if (pick(12) == 0) fault();
      if (pick(8) == 0) move();
      turn();
    }
    can_crash_ = false;
    settle();
    if (wrong_.empty()) check_rest();
    if (!wrong_.empty()) return wrong_;
    for (int i = 0; i < 3 && wrong_.empty(); ++i) take_over_in_calm();
    return wrong_;
  }

  static int num_crashes, num_repairs, num_moved;

 private:
  struct LaneOfRank {
    PlanEpoch epoch{1};
    bool linked = false, open = false, held = false, awaited = false;
  };
  struct Rank {
    uint32_t run = 0;
    bool runs = false, loaded = false;
    std::map<uint8_t, LaneOfRank> lanes = {};
  };
  struct Lane {
    std::map<PlanEpoch, int> used;  // by which coordinator
    PlanEpoch told{};               // to its client
    std::pair<uint32_t, uint32_t> client;
  };
  using Of = std::pair<uint32_t, uint32_t>;
  struct Due {
    D::Event event;
    Of of;
  };

  int pick(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }
  static LaneId lane_id(size_t i) { return LaneId(static_cast<uint8_t>(i)); }
  void wrong(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  Plan make_plan() {
    Plan plan = random_stages(random_, 4);
    plan.failover_restarts = 100000;
    return plan;
  }

  // ------------------------------------------------------------------- the world

  void die(uint32_t number) {
    Rank& rank = ranks_[number];
    if (!rank.runs) return;
    rank.runs = false;
    for (size_t i = 0; i < lanes_.size(); ++i)
      if (rank.lanes[static_cast<uint8_t>(i)].linked && is_in(lane_id(i), number)) cut(lane_id(i));
    due_.emplace(now_ + 1ms * pick(20),
                 Due{D::Exited{ProcessId(number), "killed"}, {number, rank.run}});
    rank.lanes.clear();
  }

  /// Who has been moved from is in no lane.
  bool is_in(LaneId lane, uint32_t number) const {
    return std::any_of(plan_.stages.begin(), plan_.stages.end(), [&](const StagePlan& stage) {
      return core_->process_in(rank_at(plan_, lane, stage.index)).value == number;
    });
  }

  void move() {
    const RankId place(static_cast<uint32_t>(pick(num_ranks(plan_))));
    if (core_->may_move(place).ok()) carry_out(core_->step(D::MoveRequested{place}, now_));
  }

  /// A link broke: all stages of the lane drain.
  void cut(LaneId lane) {
    for (uint32_t n = 0; n < ranks_.size(); ++n) {
      LaneOfRank& own = ranks_[n].lanes[lane.value];
      if (!ranks_[n].runs || !std::exchange(own.open, false)) continue;
      own.held = true;
      tell_broken(n);
    }
  }

  void tell_broken(uint32_t number) {
    const Error broke{ErrorCode::disconnected, "a link broke"};
    due_.emplace(now_ + 1ms * pick(20),
                 Due{D::LinkBroken{ProcessId(number), broke}, {number, ranks_[number].run}});
  }

  /// Whoever watches is told at once of what is still broken.
  void watch_again(LaneId lane) {
    for (uint32_t n = 0; n < ranks_.size(); ++n)
      if (ranks_[n].lanes[lane.value].linked && !ranks_[n].lanes[lane.value].open) tell_broken(n);
  }

  /// A death while the first coordinator brings it up ends it all.
  void fault() {
    if (core_->phase() == D::Phase::starting) return;
    if (pick(3) > 0) return die(static_cast<uint32_t>(pick(static_cast<int>(ranks_.size()))));
    cut(lane_id(static_cast<size_t>(pick(static_cast<int>(lanes_.size())))));
  }

  void answer(ProcessId process, D::Event event) {
    due_.emplace(now_ + 1ms * (1 + pick(60)),
                 Due{std::move(event), {process.value, ranks_[process.value].run}});
  }

  // ------------------------------------------------------------------- coordinators

  void carry_out(const std::vector<D::Action>& actions) {
    const size_t crash_at = can_crash_ && pick(60) == 0 ? static_cast<size_t>(pick(4)) : SIZE_MAX;
    if (crash_at == 0) return crash();  // before it is written down
    written_ = core_->record();
    for (size_t i = 0; i < actions.size(); ++i) {
      if (i + 1 == crash_at) return crash();
      carry_out(actions[i]);
    }
  }

  void crash() {
    ++num_crashes;
    ++coordinator_;
    due_.clear();
    now_ = now_ + 1ms * pick(500);
    for (int i = pick(3); i > 0; --i) fault();
    due_.clear();  // nobody hears of that
    take_over();
  }

  void take_over() {
    if (!written_) {  // nothing was begun
      core_.emplace(plan_, DeploymentLimits{});
      return carry_out(core_->start(now_));
    }
    const Status good = check(*written_, plan_);
    if (!good.ok()) return wrong(good.error().message);
    std::vector<ProcessId> living;
    for (uint32_t n = 0; n < ranks_.size(); ++n) {
      if (!ranks_[n].runs) continue;
      living.emplace_back(n);
      answer(living.back(), D::Greeted{living.back()});
    }
    core_.emplace(plan_, DeploymentLimits{});
    carry_out(core_->adopt(*written_, living, now_));
  }

  void turn() {
    const auto deadline = core_->next_deadline();
    const auto next = due_.begin();
    if (next == due_.end() || (deadline && *deadline < next->first)) {
      if (!deadline) return;
      now_ = std::max(now_, *deadline);
      return carry_out(core_->on_time(now_));
    }
    now_ = std::max(now_, next->first);
    const Due due = next->second;
    due_.erase(next);
    const bool is_exit = std::holds_alternative<D::Exited>(due.event);
    const Rank& from = ranks_[due.of.first];
    if (from.run == due.of.second && from.runs != is_exit) carry_out(core_->step(due.event, now_));
  }

  void settle() {
    for (int i = 0; (!due_.empty() || core_->next_deadline()) && wrong_.empty(); ++i)
      if (i > kMaxEvents)
        wrong("it does not come to rest");
      else
        turn();
  }

  void check_rest() {
    for (size_t i = 0; i < lanes_.size(); ++i) {
      const uint32_t first = core_->process_in(rank_at(plan_, lane_id(i), StageIndex(0))).value;
      if (core_->state(lane_id(i)) != LaneRepair::State::serving)
        wrong(fmt::format("lane {} does not serve", i));
      if (lanes_[i].client != Of(first, ranks_[first].run))
        wrong(fmt::format("the client of lane {} is attached to {}.{}, not {}.{}", i,
                          lanes_[i].client.first, lanes_[i].client.second, first,
                          ranks_[first].run));
    }
    for (size_t n = 0; n < ranks_.size(); ++n) {
      const bool is_spare = core_->record().processes[n].is_spare;
      if (is_spare == ranks_[n].runs)
        wrong("a process is missing, or one is there that should not");
      if (!is_spare && !ranks_[n].loaded) wrong("a process has not loaded");
    }
  }

  void take_over_in_calm() {
    ++coordinator_;
    take_over();
    in_calm_ = true;
    settle();
    in_calm_ = false;
    check_rest();
  }

  // ------------------------------------------------------------------- actions

  void carry_out(const D::Action& action) {
    Rank& rank = ranks_[action.process.value];
    if (in_calm_ && action.kind != Kind::serve && action.kind != Kind::load &&
        action.kind != Kind::lane_serving)
      wrong(fmt::format("action {} where nothing is wrong", static_cast<int>(action.kind)));
    switch (action.kind) {
      case Kind::spawn:
        if (rank.runs) wrong("a number is used twice");
        rank = {.run = rank.run + 1, .runs = true};
        return answer(action.process, D::Greeted{action.process});
      case Kind::load:
        return load(rank, action);
      case Kind::fence:
        return fence(rank, action);
      case Kind::connect:
        return connect(rank, action);
      case Kind::resume:
        return resume(rank, action);
      case Kind::serve:
        for (size_t i = 0; i < lanes_.size(); ++i) tell_client(lane_id(i));
        return;
      case Kind::lane_serving:
        ++num_repairs;
        if (core_->has_served()) tell_client(action.lane);
        return watch_again(action.lane);
      case Kind::repairing:
        return;
      case Kind::kill:
        return die(action.process.value);
      case Kind::fail:
        return wrong("it failed: " + action.error.message);
      case Kind::take_in:
        if (rank.runs) answer(action.process, D::TakingIn{action.process, action.move});
        return;
      case Kind::copy:
        newcomer_ = action.newcomer;
        if (rank.runs) answer(action.process, D::Copied{action.process, action.move});
        return;
      case Kind::finish:
        return finish(rank, action);
      case Kind::moved:
        ++num_moved;
        return;
      case Kind::not_moved:
        return;
      case Kind::shutdown:
      case Kind::stopped:
      case Kind::ready:
      case Kind::switched:
      case Kind::changed:
      case Kind::not_changed:
        return wrong("it stops, or changes");
    }
  }

  void load(Rank& rank, const D::Action& action) {
    if (!rank.runs) return;
    D::Loaded loaded{action.process, "same", {}};
    for (const LaneId lane : lanes_of(plan_, action.place)) {
      const LaneOfRank& own = rank.lanes[lane.value];
      loaded.lanes.push_back({lane, {own.epoch, own.linked, own.open && !own.held}});
    }
    rank.loaded = true;
    answer(action.process, std::move(loaded));
  }

  void use(const D::Action& action) {
    const auto [entry, is_new] = lanes_[action.lane.value].used.emplace(action.epoch, coordinator_);
    if (entry->second != coordinator_) wrong(fmt::format("epoch {} was used before", action.epoch));
  }

  void fence(Rank& rank, const D::Action& action) {
    use(action);
    if (!rank.runs) return;
    LaneOfRank& own = rank.lanes[action.lane.value];
    if (action.epoch <= own.epoch) wrong(fmt::format("a fence of the old epoch {}", action.epoch));
    own.epoch = action.epoch;
    own.open = false;
    own.held = true;
    answer(action.process, D::Fenced{action.process, action.lane, action.epoch});
  }

  void connect(Rank& rank, const D::Action& action) {
    use(action);
    if (!rank.runs) return;
    LaneOfRank& own = rank.lanes[action.lane.value];
    if (action.epoch < own.epoch) wrong(fmt::format("a connect of the old epoch {}", action.epoch));
    if (own.open) wrong("it has links already");
    const bool is_new = own.epoch == plan_.epoch && action.epoch > plan_.epoch;
    own = {action.epoch, true, true, own.held || is_new, false};
    answer(action.process, D::Connected{action.process, action.lane, action.epoch});
  }

  void finish(const Rank& rank, const D::Action& action) {
    Rank& newcomer = ranks_[newcomer_.value];
    if (!rank.runs || !newcomer.runs) return;
    for (const LaneId lane : lanes_of(plan_, action.place))
      newcomer.lanes[lane.value].linked = true;
    answer(action.process, D::Finished{action.process, action.move});
  }

  void resume(Rank& rank, const D::Action& action) {
    use(action);
    if (!rank.runs) return;
    LaneOfRank& own = rank.lanes[action.lane.value];
    if (own.epoch != action.epoch || !own.open || !own.held)
      return answer(action.process, D::CallFailed{action.process,
                                                  action.lane,
                                                  action.epoch,
                                                  {ErrorCode::invalid_argument, "not linked"}});
    for (const StagePlan& stage : plan_.stages) {
      const ProcessId id = core_->process_in(rank_at(plan_, action.lane, stage.index));
      LaneOfRank& other = ranks_[id.value].lanes[action.lane.value];
      if (other.open && other.epoch == action.epoch) other.held = false;
    }
    answer(action.process, D::Resumed{action.lane, action.epoch});
  }

  /// What the service's clients do with what they are told.
  void tell_client(LaneId id) {
    Lane& lane = lanes_[id.value];
    const PlanEpoch since = core_->first_since(id);
    if (since <= lane.told) return;
    const uint32_t first = core_->process_in(rank_at(plan_, id, StageIndex(0))).value;
    if (!ranks_[first].runs) return;  // it cannot connect, and is told again
    lane.told = since;
    lane.client = {first, ranks_[first].run};
  }

  std::mt19937 random_;
  Plan plan_;
  std::optional<D> core_;
  std::optional<DeploymentRecord> written_;
  int coordinator_ = 0;
  bool can_crash_ = true;
  bool in_calm_ = false;
  TimePoint now_;
  std::vector<Rank> ranks_;  // by number
  std::vector<Lane> lanes_;
  std::multimap<TimePoint, Due> due_;
  ProcessId newcomer_;
  std::string wrong_;
};

int CrashingCoordinators::num_crashes = 0;
int CrashingCoordinators::num_repairs = 0;
int CrashingCoordinators::num_moved = 0;

}  // namespace

BOOST_AUTO_TEST_SUITE(deployment_crash)

BOOST_AUTO_TEST_CASE(the_next_coordinator_goes_on) {
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    const std::string wrong = CrashingCoordinators(seed).run();
    BOOST_TEST_REQUIRE(wrong.empty(), "seed " << seed << ": " << wrong);
  }
  BOOST_TEST(CrashingCoordinators::num_crashes > 10000);
  BOOST_TEST(CrashingCoordinators::num_repairs > 10000);
  BOOST_TEST(CrashingCoordinators::num_moved > 1000);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
