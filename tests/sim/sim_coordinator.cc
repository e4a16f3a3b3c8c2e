#include "tests/sim/sim_coordinator.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::sim {

using namespace std::chrono_literals;
using graph::DeploymentLimits;
using graph::DeploymentRecord;
using graph::FailureDetectorLimits;

SimCoordinator::SimCoordinator(SimWorld& world, const Scenario& scenario, SimAgent& agent,
                               SimStore& store, DeploymentCheck& check, Observer observer,
                               int number)
    : world_(world),
      scenario_(scenario),
      agent_(agent),
      store_(store),
      check_(check),
      observer_(std::move(observer)),
      number_(number),
      core_(scenario.plan, DeploymentLimits{}, store.read().value_or(DeploymentRecord{})),
      detector_(world.plant == Plant::gap_not_discounted ? FailureDetectorLimits{.late_max = 1h}
                                                         : FailureDetectorLimits{}),
      processes_(most_numbers(scenario.plan)),
      lanes_(static_cast<size_t>(num_lanes(scenario.plan))) {}

// -------------------------------------------------------------------------------- its life

void SimCoordinator::begin() {
  agent_.on_exits([this](ProcessId id, uint32_t run, const std::string& how) {
    post([this, id, run, how] { on_exited(id, run, how); });
  });
  const std::optional<DeploymentRecord> record = store_.read();
  world_.say("coordinator {} {}", number_, record ? "takes over" : "begins");
  post([this, record] {
    begun_ = true;
    if (record) return take_over(*record);
    carry_out(core_.start(world_.now()));
  });
}

void SimCoordinator::die() {
  world_.say("coordinator {} dies", number_);
  alive_ = false;
  inbox_.clear();
  agent_.on_exits(nullptr);
  store_.settle();
}

void SimCoordinator::stop() {
  post([this] { step(Deployment::StopRequested{}); });
}

void SimCoordinator::move(RankId place) {
  post([this, place] {
    if (!core_.may_move(place).ok()) return;
    check_.touch(place);
    step(Deployment::MoveRequested{place});
  });
}

void SimCoordinator::change() {
  post([this] {
    graph::Plan next = core_.plan();
    ++next.stages.front().num_threads;
    if (!core_.may_change(next).ok()) return;
    world_.say("coordinator {} begins a change", number_);
    check_.touch_all();
    carry_out(core_.change(next, world_.now()));
  });
}

/// One that has loaded says what it knows; the others are told to load.
void SimCoordinator::take_over(const DeploymentRecord& given) {
  const DeploymentRecord record = believed(given);
  if (const Status good = graph::check(record, scenario_.plan); !good.ok())
    return world_.fail("coordinator {}: {}", number_, good.error().message);
  std::vector<ProcessId> living;
  for (SimProcess* const process : agent_.processes()) {
    if (process == nullptr) continue;
    at(process->id()).run = process->run();
    if (!process->is_alive()) continue;
    living.push_back(process->id());
    if (!core_.is_in_force(process->id())) continue;
    at(process->id()).is = process;
    if (record.processes[process->id().value - record.first_number].is_loaded)
      detector_.watch(process->id(), world_.now());
  }
  carry_out(core_.adopt(record, living, world_.now()));
  for (const ProcessId id : living)
    if (core_.is_in_force(id)) post([this, id] { greet(id); });
}

DeploymentRecord SimCoordinator::believed(DeploymentRecord record) const {
  if (world_.plant == Plant::restarts_uncounted) record.ends.clear();
  if (world_.plant != Plant::epoch_reused || record.epoch == scenario_.plan.epoch) return record;
  record.epoch = PlanEpoch(record.epoch.value - 1);
  for (DeploymentRecord::Lane& lane : record.lanes) {
    lane.epoch = std::min(lane.epoch, record.epoch);
    lane.first_since = std::min(lane.first_since, record.epoch);
  }
  return record;
}

std::string SimCoordinator::unfinished() const {
  if (busy_ || !inbox_.empty()) return "the coordinator is busy";
  if (core_.phase() != Deployment::Phase::serving) return "the deployment does not serve";
  for (size_t i = 0; i < lanes_.size(); ++i)
    if (core_.state(LaneId(static_cast<uint8_t>(i))) != graph::LaneRepair::State::serving)
      return fmt::format("lane {} does not serve", i);
  if (core_.move()) return "a rank is being moved";
  if (!core_.is_settled()) return "the plan is being changed";
  const DeploymentRecord record = core_.record();
  for (size_t i = 0; i < record.processes.size(); ++i) {
    const Process& process = processes_[record.first_number + i];
    if (record.processes[i].is_spare) continue;
    if (!process.is_loaded || process.is == nullptr || !process.is->is_alive())
      return fmt::format("process {} is not there", i);
  }
  return core_.next_deadline() ? "the coordinator waits for something" : "";
}

// -------------------------------------------------------------------------------- turns

void SimCoordinator::post(std::function<void()> what) {
  if (!alive_) return;
  inbox_.push_back(std::move(what));
  if (!busy_) next();
}

void SimCoordinator::next() {
  if (std::exchange(in_turn_, true)) return;
  while (alive_ && !busy_ && !inbox_.empty() && world_.wrong.empty()) {
    const std::function<void()> what = std::move(inbox_.front());
    inbox_.pop_front();
    what();
  }
  in_turn_ = false;
  if (alive_ && !busy_) set_alarm();
}

void SimCoordinator::step(const Deployment::Event& event) {
  carry_out(core_.step(event, world_.now()));
}

void SimCoordinator::carry_out(Actions actions) {
  CHECK(!std::exchange(busy_, true));
  const auto shared = std::make_shared<Actions>(std::move(actions));
  const auto act = [this, shared](const Status& written) {
    if (!alive_) return;
    if (!written.ok()) *shared = give_up(*shared, written.error());
    carry_out_from(shared, 0);
  };
  const bool ends = core_.phase() == Deployment::Phase::stopping || has_stopped();
  DeploymentRecord record = core_.record();
  if (ends || written_ == record) return act(ok_status());
  written_ = record;
  if (world_.plant != Plant::act_before_write) return store_.write(record, act);
  world_.after(10ms, [this, record] {
    if (alive_) store_.write(record, [](const Status&) {});
  });
  act(ok_status());
}

/// One action after the other, so that this may die between any two.
void SimCoordinator::carry_out_from(std::shared_ptr<Actions> actions, size_t first) {
  if (!alive_) return;
  if (first == actions->size()) {
    busy_ = false;
    return next();
  }
  carry_out((*actions)[first]);
  world_.after(world_.random.up_to(20us),
               [this, actions = std::move(actions), first] { carry_out_from(actions, first + 1); });
}

/// In place of the actions, none of which may be done.
SimCoordinator::Actions SimCoordinator::give_up(const Actions& undone, const Error& why) {
  Actions actions = core_.step(Deployment::CannotGoOn{why}, world_.now());
  for (const Deployment::Action& action : undone) {
    if (action.kind != Deployment::ActionKind::spawn) continue;
    const Actions more = core_.step(Deployment::NotStarted{action.process, why}, world_.now());
    actions.insert(actions.end(), more.begin(), more.end());
  }
  return actions;
}

void SimCoordinator::set_alarm() {
  const std::optional<TimePoint> own = core_.next_deadline();
  const std::optional<TimePoint> look = detector_.next_deadline();
  const std::optional<TimePoint> due = own && look ? std::min(*own, *look) : own ? own : look;
  if (!due || has_stopped() || (alarm_ && *alarm_ <= *due && *alarm_ > world_.now())) return;
  alarm_ = std::max(*due, world_.now() + 1ns);
  world_.events.at(*alarm_, [this, when = *alarm_] {
    if (alive_ && alarm_ == when) post([this] { on_alarm(); });
  });
}

void SimCoordinator::on_alarm() {
  alarm_.reset();
  post([this] { look_for_hangs(); });
  carry_out(core_.on_time(world_.now()));
}

void SimCoordinator::look_for_hangs() {
  const graph::FailureDetector::Looked looked = detector_.on_time(world_.now());
  for (const ProcessId id : looked.ask) {
    SimProcess* const process = at(id).is;
    if (process == nullptr) continue;  // planted: a zombie was believed
    const Duration there_and_back = scenario_.call_delay * 2;
    const uint32_t run = at(id).run;
    const auto answer = [this, process, id, run] {
      post([this, process, id, run] {
        if (at(id).run == run) detector_.on_answer(id, process->beat(), world_.now());
      });
    };
    world_.after(there_and_back, [process, answer] {
      if (process->is_stuck()) return answer();  // another thread answers
      process->when_awake(answer);
    });
  }
  for (const auto& [id, silent_for, answers] : looked.hung) {
    if (at(id).is != nullptr) check_.hung(*at(id).is, world_.now());
    post([this, id = id] {
      step(Deployment::Failed{id, make_error(ErrorCode::deadline_exceeded, "it hangs")});
    });
  }
}

}  // namespace chainpump::sim
