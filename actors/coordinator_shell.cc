#include "actors/coordinator_shell.h"

#include <fmt/format.h>

#include "actors/convert.h"

namespace chainpump::actors {

using graph::Deployment;
using graph::LaneId;

void CoordinatorShell::on_found(RanksFound& found, CoordinatorActor self) {
  is_begun_ = true;
  std::vector<ProcessId> living;
  if (found.ranks.ok()) {
    for (const RankHost::Found& rank : *found.ranks) {
      const ProcessId process(rank.rank.value);
      living.push_back(process);
      if (!core_.is_in_force(process)) continue;
      at(process).port = rank.port;
      // One that may still load says nothing for long.
      const uint32_t index = process.value - options_.before->first_number;
      const bool has_loaded = options_.before->processes[index].is_loaded;
      if (rank.port && has_loaded) watch_for_hangs(process);
    }
  }
  carry_out(core_.adopt(*options_.before, living, clock_.now()), self);
  if (!found.ranks.ok()) return step(Deployment::CannotGoOn{found.ranks.error()}, self);
  for (const ProcessId process : living)
    if (core_.is_in_force(process)) greet(process, self);
  for (const CoordinatorEvent& event : std::exchange(early_, {})) on_event(event, self);
}

Status CoordinatorShell::write_down() {
  const bool ends = core_.phase() == Deployment::Phase::stopping || stopped();
  if (!options_.store || ends) return ok_status();
  graph::DeploymentRecord record = core_.record();
  if (written_ == record) return ok_status();
  const CoordinatorBeats::Writing writing(options_.beats.get(), clock_.now());
  RETURN_IF_ERROR(options_.store->write(record));
  written_ = std::move(record);
  return ok_status();
}

std::vector<Deployment::Action> CoordinatorShell::give_up(
    const std::vector<Deployment::Action>& undone, const Error& why) {
  auto actions = core_.step(Deployment::CannotGoOn{why}, clock_.now());
  for (const Deployment::Action& action : undone) {
    if (action.kind != Deployment::ActionKind::spawn) continue;
    const auto more = core_.step(Deployment::NotStarted{action.process, why}, clock_.now());
    actions.insert(actions.end(), more.begin(), more.end());
  }
  return actions;
}

void CoordinatorShell::look_for_hangs(const CoordinatorActor& self) {
  const graph::FailureDetector::Looked looked = detector_.on_time(clock_.now());
  for (const ProcessId process : looked.ask)
    at(process).port->beat(kBeatDeadline, [self, of = run_of(process),
                                           asked = clock_.now()](Result<rpc::BeatReply> beat) {
      BeatHeard heard{of, asked, std::nullopt};
      if (beat.ok())
        heard.beat = std::move(*beat);
      else if (beat.error().code == ErrorCode::disconnected)
        tell(self, Deployment::Unreachable{of.process, beat.error()}, of);
      caf::anon_send(self, std::make_shared<BeatHeard>(std::move(heard)));
    });
  for (const auto& [process, silent_for, answers] : looked.hung)
    step(Deployment::Failed{process,
                            make_error(ErrorCode::deadline_exceeded, "it hangs: {} for {:.2f} s",
                                       answers ? "its computing thread has done nothing"
                                               : "it has not answered",
                                       to_seconds(silent_for))},
         self);
}

void CoordinatorShell::on_beat(const BeatHeard& heard, const CoordinatorActor& self) {
  if (!is_there(heard.of)) return;
  const TimePoint now = clock_.now();
  const std::optional<rpc::BeatReply>& beat = heard.beat;
  detector_.on_answer(heard.of.process, beat ? std::optional(beat->count) : std::nullopt, now);
  if (!beat) return;
  slow_watch_.on_answer(heard.of.process,
                        {.steps = beat->steps.steps,
                         .behind = beat->steps.behind,
                         .slow = beat->steps.slow,
                         .measured = Duration(beat->steps.measured_ns),
                         .expected = Duration(beat->steps.expected_ns)},
                        now);
  std::vector<graph::LinkEnd> ends;
  for (const rpc::LinkBeat& end : beat->links)
    ends.push_back({.link = EdgeId(end.edge),
                    .incarnation = LinkIncarnation(end.incarnation),
                    .is_sender = end.is_sender,
                    .spoken = end.spoken,
                    .heard = end.heard,
                    .looked = heard.asked - Duration(end.looked_ago_ns)});
  for (const graph::LinkWatch::Silent& silent : link_watch_.on_answer(ends, now))
    step(
        Deployment::LinkBroken{
            .process = heard.of.process,
            .error = make_error(ErrorCode::disconnected,
                                "link {} is silent: of what was sent, {} {} have not come for "
                                "{:.2f} s, and both its ends work",
                                silent.link, silent.missing, silent.frames ? "frames" : "credits",
                                to_seconds(silent.silent_for)),
            .is_no_death = true},
        self);
}

/// Of a rank that has become so; else empty.
std::string CoordinatorShell::why_slow(RankId place) const {
  const std::optional<double> times = slow_watch_.slow_times(core_.process_in(place));
  if (!times) return {};
  return fmt::format(
      "{}: its steps take {:.0f} times as long as they did, others of its lane do not",
      rank_name(options_.plan, place), *times);
}

void CoordinatorShell::look_for_slow(const CoordinatorActor& self) {
  std::vector<std::vector<ProcessId>> lanes(lanes_.size());
  std::map<ProcessId, RankId> places;
  for (size_t i = 0; i < lanes.size(); ++i)
    for (const graph::StagePlan& stage : options_.plan.stages) {
      const RankId place = rank_at(options_.plan, LaneId(static_cast<uint8_t>(i)), stage.index);
      lanes[i].push_back(core_.process_in(place));
      places[lanes[i].back()] = place;
    }
  const std::vector<graph::SlowWatch::Change> changes = slow_watch_.look(lanes);
  for (const auto& [process, is_slow] : changes) {
    const RankId place = places.at(process);
    notice(is_slow ? why_slow(place) : rank_name(options_.plan, place) + " is no longer slow");
  }
  if (!changes.empty()) tell_lanes();
  if (!options_.plan.failover_evicts_slow) return;
  for (const auto& [process, place] : places) {
    if (!slow_watch_.slow_times(process) || !core_.may_lose_one(clock_.now())) continue;
    const Error why = make_error(ErrorCode::deadline_exceeded, "it is too slow, and evicted");
    step(Deployment::Failed{process, why}, self);
  }
}

std::string CoordinatorShell::slow_ranks(LaneId lane) const {
  std::string all;
  for (const graph::StagePlan& stage : options_.plan.stages) {
    const std::string why = why_slow(rank_at(options_.plan, lane, stage.index));
    if (!why.empty()) all += (all.empty() ? "" : "; ") + why;
  }
  return all;
}

bool CoordinatorShell::spins(ProcessId process) const {
  const bool is_next = change_ && !core_.is_in_force(process);
  return is_next ? change_->spec.spin_between_ops : options_.spin_between_ops;
}

void CoordinatorShell::load(const Deployment::Action& action, const CoordinatorActor& self) {
  rpc::LoadParams params{.plan = to_wire(core_.plan_of(action.process)),
                         .rank = action.place.value,
                         .isa = options_.isa,
                         .listen_address = options_.listen_address,
                         .spin_between_ops = spins(action.process),
                         .cache_folder = options_.cache_folder,
                         .term = options_.term};
  if (options_.weight_sources) params.weights = options_.weight_sources();
  // What comes later, or stands by, is nothing that anybody waits for.
  const bool is_shown = core_.phase() == Deployment::Phase::starting &&
                        core_.process_in(action.place) == action.process;
  const ProcessRun of = run_of(action.process);
  at(action.process)
      .port->load(
          std::move(params), kLoadDeadline,
          [self, of, is_shown, place = action.place, progress = observer_.on_progress](
              int64_t done, int64_t total) {
            tell(self, Deployment::LoadProgressed{of.process}, of);
            if (is_shown) progress(place, done, total);
          },
          [self, of](Result<rpc::LoadReport> report) {
            if (!report.ok()) return tell_failed(self, of, std::move(report).error());
            caf::anon_send(self, std::make_shared<RankLoaded>(RankLoaded{of, *report}));
          });
}

/// Those whose repair begins with this have an epoch that they had not before.
void CoordinatorShell::note_lanes_away(const std::string& why) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const LaneId id(static_cast<uint8_t>(i));
    Lane& lane = lanes_[i];
    const bool serves = core_.state(id) == graph::LaneRepair::State::serving;
    if (serves || lane.away_in == core_.epoch(id)) continue;
    lane.away_in = core_.epoch(id);
    lane.why_away = why;
    if (!lane.away_since) lane.away_since = clock_.now();
  }
  tell_lanes();
}

void CoordinatorShell::tell_lanes() const {
  if (!observer_.on_lanes || !core_.has_served()) return;
  std::vector<graph::LaneNews> news;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    graph::LaneNews& lane = news.emplace_back();
    lane.epoch = core_.epoch(LaneId(static_cast<uint8_t>(i)));
    lane.slow = slow_ranks(LaneId(static_cast<uint8_t>(i)));
    lane.serves = !lanes_[i].away_since;
    if (lane.serves) continue;
    lane.why = lanes_[i].why_away;
    lane.away_for = clock_.now() - *lanes_[i].away_since;
  }
  observer_.on_lanes(std::move(news));
}

void CoordinatorShell::fence(const Deployment::Action& action, const CoordinatorActor& self) {
  Lane& lane = at(action.lane);
  if (lane.fence_epoch != action.epoch) lane.holdings.clear();
  lane.fence_epoch = action.epoch;
  at(action.process)
      .port->fence(action.lane, action.epoch, kCallDeadline,
                   [self, of = run_of(action.process), id = action.lane,
                    epoch = action.epoch](Result<rpc::StageHoldings> holdings) {
                     if (!holdings.ok()) return tell_failed(self, of, std::move(holdings).error());
                     caf::anon_send(self, std::make_shared<RankFenced>(
                                              RankFenced{of, id, epoch, std::move(*holdings)}));
                   });
}

void CoordinatorShell::connect(const Deployment::Action& action, const CoordinatorActor& self) {
  LaneLinks& links = at(action.lane).links;
  if (links.epoch() != action.epoch) links.renew(action.epoch);
  const StageIndex stage = place_of(options_.plan, action.place).stage;
  const RankId next = rank_at(options_.plan, action.lane, links.after(stage));
  at(action.process)
      .port->connect(
          links.params(stage, at(core_.process_in(next)).report), kCallDeadline,
          answered(action, self, Deployment::Connected{action.process, action.lane, action.epoch}));
}

void CoordinatorShell::resume(const Deployment::Action& action, const CoordinatorActor& self) {
  const Lane& lane = at(action.lane);
  std::vector<rpc::StageHoldings> stages;
  if (lane.fence_epoch == action.epoch) {  // else nobody was there to be fenced
    for (const graph::StagePlan& stage : options_.plan.stages) {
      // Not of one whose place is another's by now.
      const ProcessId process = core_.process_in(rank_at(options_.plan, action.lane, stage.index));
      const auto found = lane.holdings.find(process);
      if (found != lane.holdings.end()) stages.push_back(found->second);
    }
  }
  at(action.process)
      .port->resume(action.lane, action.epoch, std::move(stages), kCallDeadline,
                    answered(action, self, Deployment::Resumed{action.lane, action.epoch}));
}

void CoordinatorShell::serve() {
  note_ports();
  for (const auto& [process, is] : processes_)
    if (is.is_loaded) watch_for_hangs(process);
  for (size_t i = 0; i < lanes_.size(); ++i) {
    // Of a coordinator before.
    const graph::LaneRepair::State state = core_.state(LaneId(static_cast<uint8_t>(i)));
    if (state == graph::LaneRepair::State::serving || state == graph::LaneRepair::State::adopting)
      continue;
    lanes_[i].away_since = clock_.now();
    lanes_[i].why_away = "another coordinator has taken over during its repair";
  }
  is_announced_ = true;
  observer_.on_serving(ports_, core_.numerics_id(), firsts());
  tell_lanes();
}

void CoordinatorShell::lane_serving(const Deployment::Action& action,
                                    const CoordinatorActor& self) {
  note_ports();
  if (is_announced_ && !has_switched_)  // else all are told at once
    observer_.on_repaired(ports_, action.lane, {RankId(action.process.value), action.first_since});
  if (const auto since = std::exchange(at(action.lane).away_since, std::nullopt))
    notice(fmt::format("lane {} serves again after {:.2f} s", action.lane,
                       to_seconds(clock_.now() - *since)));
  tell_lanes();
  for (const graph::StagePlan& stage : options_.plan.stages) {
    const ProcessId process = core_.process_in(rank_at(options_.plan, action.lane, stage.index));
    if (!at(process).is_watched) watch(process, self);
  }
}

}  // namespace chainpump::actors
