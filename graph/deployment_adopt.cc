// How a deployment goes on under a new coordinator: what is written down for it, and what it does
// with that.
#include <algorithm>

#include "base/check.h"
#include "graph/deployment.h"

namespace chainpump::graph {

int32_t num_numbers(const Plan& plan) { return num_processes(plan) + 1; }

Status check(const DeploymentRecord& record, const Plan& plan) {
  const auto bad = [](const char* what) {
    return make_error(ErrorCode::bad_file, "the record is not of a deployment of this plan: {}",
                      what);
  };
  if (record.lanes.size() != static_cast<size_t>(num_lanes(plan))) return bad("it has other lanes");
  if (record.processes.size() != static_cast<size_t>(num_numbers(plan)))
    return bad("it has other processes");
  if (record.epoch < plan.epoch) return bad("its epoch is older");
  for (const DeploymentRecord::Lane& lane : record.lanes)
    if (lane.epoch > record.epoch || lane.epoch < plan.epoch || lane.first_since > lane.epoch)
      return bad("a lane's epoch is none of its");
  // Each place has one process; beside them are each stage's standbys, and a spare.
  std::vector<int32_t> num_in_place(static_cast<size_t>(num_ranks(plan)));
  std::vector<int32_t> num_standbys(plan.stages.size());
  int32_t num_spares = 0;
  for (const DeploymentRecord::Process& process : record.processes) {
    if (process.place.value >= num_in_place.size()) return bad("it has other places");
    if (process.is_spare)
      ++num_spares;
    else if (process.is_standby)
      ++num_standbys[static_cast<size_t>(place_of(plan, process.place).stage.value)];
    else
      ++num_in_place[process.place.value];
  }
  bool good = num_spares == 1 && std::all_of(num_in_place.begin(), num_in_place.end(),
                                             [](int32_t count) { return count == 1; });
  for (size_t i = 0; i < plan.stages.size(); ++i)
    good &= num_standbys[i] == plan.stages[i].standbys;
  if (!good) return bad("a stage has other ranks");
  if (!std::is_sorted(record.ends.begin(), record.ends.end())) return bad("its ends have no order");
  return ok_status();
}

// -------------------------------------------------------------------------------- a lane

LaneRepair::LaneRepair(int32_t num_stages, const DeploymentRecord::Lane& was,
                       const LaneRepairLimits& limits)
    : limits_(limits),
      state_(State::adopting),
      epoch_(was.epoch),
      first_since_(was.first_since),
      first_is_new_(was.first_is_new),
      members_(static_cast<size_t>(num_stages)) {}

bool LaneRepair::adopt(StageIndex stage, const LaneSeen& seen, TimePoint now) {
  if (!seen.linked) {
    take(stage);
    return state_ != State::adopting;
  }
  CHECK(at(stage).place == Place::empty);
  const bool as_written = state_ == State::adopting && seen.at_work && seen.epoch == epoch_;
  at(stage) = {.place = Place::linked, .answered = as_written};
  if (state_ == State::adopting) {
    if (!as_written) return false;
    if (!all_there() || !none_awaited()) return true;
    state_ = State::serving;
    ask(AskKind::serving, StageIndex(0));
  } else if (state_ == State::fencing) {
    deadline_ = now + limits_.fence_max;
    ask(AskKind::fence, stage);
  }
  return true;
}

// -------------------------------------------------------------------------------- all of them

DeploymentRecord Deployment::record() const {
  DeploymentRecord record{.first_number = first_number_,
                          .has_served = has_served_,
                          .epoch = epoch_,
                          .numerics_id = numerics_id_,
                          .lanes = {},
                          .processes = {},
                          .ends = {ends_.times().begin(), ends_.times().end()}};
  for (const LaneRepair& lane : lanes_) record.lanes.push_back(lane.record());
  for (const Process& process : processes_)
    record.processes.push_back({.place = process.place,
                                .is_standby = process.is_standby,
                                .is_spare = process.is_spare,
                                .is_left_over = process.is_left_over,
                                .is_loaded = process.has_loaded});
  return record;
}

Deployment::Actions Deployment::adopt(const DeploymentRecord& record,
                                      const std::vector<ProcessId>& living, TimePoint now) {
  CHECK_EQ(record.processes.size(), processes_.size());
  CHECK_EQ(record.lanes.size(), lanes_.size());
  phase_ = Phase::serving;
  has_served_ = record.has_served;
  epoch_ = record.epoch;
  numerics_id_ = record.numerics_id;
  ends_ = Recent(ends_.window(), {record.ends.begin(), record.ends.end()});
  for (size_t i = 0; i < lanes_.size(); ++i)
    lanes_[i] = LaneRepair(static_cast<int32_t>(ranks_[i].size()), record.lanes[i], limits_.repair);
  for (size_t i = 0; i < processes_.size(); ++i) {
    Process& process = processes_[i];
    const bool lives = std::find(living.begin(), living.end(), id_of(process)) != living.end();
    process.place = record.processes[i].place;
    process.is_standby = record.processes[i].is_standby;
    process.is_spare = record.processes[i].is_spare;
    process.is_left_over = record.processes[i].is_left_over;
    process.has_loaded = record.processes[i].is_loaded;
    process.state = lives ? State::starting : State::gone;
    if (lives) process.deadline = now + limits_.greet_max;
    if (is_in_place(process)) places_[process.place.value].process = id_of(process);
  }
  Actions actions;
  for (Process& process : processes_)
    if (process.is_spare || (process.is_standby && process.is_left_over))
      release(process, now, actions);
  if (has_served_) actions.push_back({.kind = ActionKind::serve});
  replace_gone(now, actions);
  for (size_t i = 0; i < lanes_.size(); ++i)
    if (!record.lanes[i].serving && lanes_[i].state() == LaneRepair::State::adopting)
      begin_repair({LaneId(static_cast<uint8_t>(i))}, now, actions);
  pass_on_asks(now, actions);
  return actions;
}

/// One that had not loaded was about to be started, or its end was counted before. The ends of the
/// others are one, as far as anybody knows: a node agent takes its ranks along.
void Deployment::replace_gone(TimePoint now, Actions& actions) {
  std::vector<Process*> gone;
  std::vector<std::string> ended;
  for (Process& process : processes_) {
    if (process.state != State::gone || process.is_spare) continue;
    gone.push_back(&process);
    if (process.has_loaded) ended.push_back(name_of(process));
  }
  const Error why = make_error(ErrorCode::disconnected, "{} died while there was no coordinator",
                               ended.size() == 2 ? ended[0] + " and " + ended[1]
                               : ended.size() > 2
                                   ? fmt::format("{} and {} more ranks", ended[0], ended.size() - 1)
                                   : fmt::format("{}", fmt::join(ended, "")));
  if (!ended.empty() && !may_repair(why, "a rank", now, actions)) return;
  for (Process* process : gone) replace(*process, why, now, actions);
}

/// It has loaded, for this coordinator or for one before.
void Deployment::take_place_again(Process& process,
                                  const std::vector<std::pair<LaneId, LaneSeen>>& seen,
                                  TimePoint now, Actions& actions) {
  const Place& place = place_of(process);
  std::vector<LaneId> uncertain;
  for (const LaneId lane : place.lanes) {
    const auto found = std::find_if(seen.begin(), seen.end(),
                                    [&](const auto& entry) { return entry.first == lane; });
    const LaneSeen none;
    if (!at(lane).adopt(place.stage, found == seen.end() ? none : found->second, now))
      uncertain.push_back(lane);
    at(lane).advance(now);
  }
  if (uncertain.empty()) return;
  const Error why = make_error(ErrorCode::disconnected, "{} had stopped to work in {}",
                               name_of(process), lanes_text(uncertain));
  if (may_repair(why, "a rank or link", now, actions)) begin_repair(uncertain, now, actions);
}

void Deployment::on(const CannotGoOn& event, TimePoint now, Actions& actions) {
  fail(event.error, now, actions);
}

void Deployment::serve_when_all_do(Actions& actions) {
  if (has_served_) return;
  if (!std::all_of(lanes_.begin(), lanes_.end(), [](const LaneRepair& lane) {
        return lane.state() == LaneRepair::State::serving;
      }))
    return;
  has_served_ = true;
  actions.push_back({.kind = ActionKind::serve});
}

}  // namespace chainpump::graph
