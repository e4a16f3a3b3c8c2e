// A deployment of two stages, for tests that tell it events by hand.
#pragma once

#include <boost/test/unit_test.hpp>
#include <optional>
#include <string>
#include <vector>

#include "graph/deployment.h"

namespace chainpump::graph {

using D = Deployment;
using Kind = Deployment::ActionKind;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

inline constexpr LaneId kLane0{0};
inline constexpr LaneId kLane1{1};

/// The one action of this kind, or null.
inline const D::Action* only(D::ActionKind kind, const std::vector<D::Action>& actions) {
  const D::Action* found = nullptr;
  for (const D::Action& action : actions) {
    if (action.kind != kind) continue;
    BOOST_TEST_REQUIRE(found == nullptr);
    found = &action;
  }
  return found;
}

/// Whose actions of a kind there are, in order.
inline std::vector<uint32_t> whose(D::ActionKind kind, const std::vector<D::Action>& actions) {
  std::vector<uint32_t> processes;
  for (const D::Action& action : actions)
    if (action.kind == kind) processes.push_back(action.process.value);
  return processes;
}
using Processes = std::vector<uint32_t>;

struct DeploymentFixture {
  DeploymentFixture() {
    plan.stages.resize(2);
    plan.stages[0].name = "front";
    plan.stages[1].name = "back";
    begin();
  }
  void begin() {
    for (size_t i = 0; i < plan.stages.size(); ++i)
      plan.stages[i].index = StageIndex(static_cast<int32_t>(i));
    deployment.emplace(plan, DeploymentLimits{});
    const auto spawned = deployment->start(now);
    BOOST_TEST_REQUIRE(spawned.size() == static_cast<size_t>(num_processes(plan)));
  }
  std::vector<D::Action> step(const D::Event& event) { return deployment->step(event, now); }
  std::vector<D::Action> wait() {
    BOOST_TEST_REQUIRE(deployment->next_deadline().has_value());
    now = *deployment->next_deadline();
    return deployment->on_time(now);
  }
  std::vector<D::Action> load(ProcessId process) {
    step(D::Greeted{process});
    return step(D::Loaded{process, "same"});
  }
  /// Greets, loads and connects all.
  void bring_up() {
    std::vector<D::Action> last;
    for (uint32_t i = 0; i < static_cast<uint32_t>(num_processes(plan)); ++i)
      last = load(ProcessId(i));
    for (const D::Action& action : std::vector(last)) {
      BOOST_TEST_REQUIRE((action.kind == Kind::connect));
      BOOST_TEST((action.epoch == PlanEpoch(1)));
      last = step(D::Connected{action.process, action.lane, action.epoch});
    }
    BOOST_TEST_REQUIRE(only(Kind::serve, last) != nullptr);
  }
  /// Answers these actions of a lane, and what follows from that, until it serves.
  D::Action repair(std::vector<D::Action> actions, LaneId lane = kLane0) {
    for (int round = 0; round < 20; ++round) {
      std::vector<D::Action> next;
      for (const D::Action& action : actions) {
        std::vector<D::Action> more;
        if (action.kind == Kind::spawn) {
          more = load(action.process);
        } else if (action.lane != lane) {
          continue;
        } else if (action.kind == Kind::fence) {
          more = step(D::Fenced{action.process, action.lane, action.epoch});
        } else if (action.kind == Kind::connect) {
          more = step(D::Connected{action.process, action.lane, action.epoch});
        } else if (action.kind == Kind::resume) {
          more = step(D::Resumed{action.lane, action.epoch});
        } else if (action.kind == Kind::lane_serving) {
          return action;
        }
        next.insert(next.end(), more.begin(), more.end());
      }
      actions = std::move(next);
    }
    BOOST_FAIL("the lane does not serve");
    return {Kind::fail};
  }
  std::string failure(const std::vector<D::Action>& actions) {
    const D::Action* const fail = only(Kind::fail, actions);
    return fail == nullptr ? "" : fail->error.message;
  }

  const ProcessId a{0};
  const ProcessId b{1};
  const ProcessId c{2};
  Plan plan;
  TimePoint now;
  std::optional<D> deployment;
};

}  // namespace chainpump::graph
