#include "cli/chaos_run.h"

#include <signal.h>

#include <algorithm>

#include "cli/progress.h"

namespace chainpump::cli {
namespace {

constexpr Duration kLookEvery = std::chrono::milliseconds(5);
constexpr Duration kProcessesEvery = std::chrono::milliseconds(20);
constexpr uint64_t kWarmUpRequests = 8;
constexpr size_t kMetMin = 4;
constexpr Duration kMetMax = std::chrono::minutes(2);      // until a fault meets so many
constexpr Duration kGoesOnMax = std::chrono::seconds(30);  // after a fault
constexpr Duration kEndMax = std::chrono::minutes(5);      // beyond any request's deadline
constexpr Duration kCancelMax = std::chrono::seconds(10);
constexpr Duration kReleaseMax = std::chrono::seconds(2);
// Of each choice of a request, after a fault, before it goes on for certain: what was on its way
// is not more.
constexpr size_t kTokensOnTheWay = 2;

std::string victim_name(const graph::Plan& plan, const ServiceProcess& process) {
  if (process.role != ServiceRole::rank) return fmt::format("the {}", to_string(process.role));
  auto number = static_cast<int32_t>(process.number) - graph::num_ranks(plan);
  if (number < 0) return graph::rank_name(plan, RankId(process.number));
  for (const graph::StagePlan& stage : plan.stages)
    if ((number -= stage.standbys) < 0) return fmt::format("stage '{}'", stage.name);
  return fmt::format("rank {}", process.number);
}

size_t num_prompt_tokens(const gateway::GenerateRequest& request) {
  return std::get<gateway::TokenIds>(request.prompt).size();
}

}  // namespace

ChaosRun::ChaosRun(const ChaosTask& task, const graph::Plan& plan, ChaosService& service,
                   ChaosRanks& ranks, ChaosLoad& load, UnderWay& under_way,
                   std::function<void(ChaosReport)> on_part)
    : task_(task),
      plan_(plan),
      service_(service),
      ranks_(ranks),
      load_(load),
      under_way_(under_way),
      on_part_(std::move(on_part)),
      injector_(
          plan, service, ranks,
          [this](Duration patience, const Condition& holds) { return wait(patience, holds); },
          [this](const ServiceProcess& victim) { mark_victims(victim); }) {}

ChaosRun::~ChaosRun() {
  for (const OpenFault& fault : open_)
    if (fault.done.stopped.valid()) send_signal(fault.done.stopped, SIGCONT);
}

Status ChaosRun::run() {
  started_ = steady_clock().now();
  Status done = warm_up();
  if (done.ok()) done = inject_all();
  load_.close();
  if (done.ok()) done = await_ends();
  // What is under way now is of no use any more, and must end.
  if (!done.ok()) {
    under_way_.stop(done.error());
    const TimePoint deadline = steady_clock().now() + kCancelMax;
    while (!load_.unfinished().empty() && steady_clock().now() < deadline)
      std::this_thread::sleep_for(kLookEvery);
  }
  finish();
  end_progress();
  return done;
}

Status ChaosRun::warm_up() {
  load_.allow(kWarmUpRequests);
  int64_t num_before = part_.num_requests;
  ASSIGN_OR_RETURN(const bool done, wait(kEndMax, [&] {
                     return part_.num_requests - num_before >= int64_t{kWarmUpRequests};
                   }));
  if (!done)
    return make_error(ErrorCode::deadline_exceeded,
                      "the service does not answer, before any fault");
  for (const ServiceProcess& process : service_.processes())
    if (const auto held = holdings_of(process.name.pid); held && process.role != ServiceRole::rank)
      warm_[process] = *held;
  started_ = steady_clock().now();
  load_.allow(std::numeric_limits<uint64_t>::max());
  return ok_status();
}

Status ChaosRun::inject_all() {
  for (uint64_t number = task_.first_fault; number < task_.end_fault; ++number) {
    if (steady_clock().now() - started_ >= task_.duration) break;
    RETURN_IF_ERROR(inject(number));
    if (progress_is_rewritten())
      show_progress(fmt::format("chaos: fault {}, {:.0f} s", number + 1,
                                to_seconds(steady_clock().now() - started_)));
  }
  ASSIGN_OR_RETURN([[maybe_unused]] const bool over,
                   wait(kGoesOnMax, [this] { return open_.empty() || open_.back().is_over; }));
  return ok_status();
}

Status ChaosRun::wait_for_turn(const PlannedFault& fault) {
  TimePoint since = steady_clock().now();
  if (fault.in_recovery && !open_.empty()) {
    since = open_.back().done.at;
  } else {
    ASSIGN_OR_RETURN([[maybe_unused]] const bool over,
                     wait(kGoesOnMax, [this] { return open_.empty() || open_.back().is_over; }));
    since = steady_clock().now();
  }
  TimePoint due = since + fault.delay;
  if (const auto last = last_of_kind_.find(fault.kind); last != last_of_kind_.end())
    due = std::max(due, last->second + entry_of(fault.kind).apart);
  ASSIGN_OR_RETURN([[maybe_unused]] const bool due_now,
                   wait(due - steady_clock().now(), [&] { return steady_clock().now() >= due; }));
  ASSIGN_OR_RETURN(const bool meets_enough,
                   wait(kMetMax, [this] { return load_.unfinished().size() >= kMetMin; }));
  if (meets_enough) return ok_status();
  return make_error(ErrorCode::deadline_exceeded, "fewer than {} requests are under way", kMetMin);
}

/// Whose end is no wonder. With a node agent its ranks end, and a coordinator that has lost it is
/// replaced.
void ChaosRun::mark_victims(const ServiceProcess& victim) {
  victims_.insert(victim.name);
  if (victim.role != ServiceRole::agent) return;
  for (const ServiceProcess& process : service_.processes())
    if (process.role != ServiceRole::gateway) victims_.insert(process.name);
}

Status ChaosRun::inject(uint64_t number) {
  const PlannedFault planned = planned_fault(task_.seed, task_.kinds, number);
  RETURN_IF_ERROR(wait_for_turn(planned));
  count_recomputed(!planned.in_recovery);
  OpenFault fault;
  fault.kind = planned.kind;
  ASSIGN_OR_RETURN(fault.done, injector_.inject(planned));
  fault.met = load_.unfinished();
  for (const auto& request : fault.met) {
    const size_t num_tokens = request->num_tokens();
    fault.tokens_then.push_back(num_tokens);
    if (num_tokens > 0)
      fault.record.num_positions +=
          static_cast<int64_t>(num_tokens + num_prompt_tokens(request->asked().request));
  }
  last_of_kind_[planned.kind] = fault.done.at;
  fault.stopped_until = fault.done.at + planned.pause;
  FaultRecord& record = fault.record;
  record.number = number;
  record.what = entry_of(planned.kind).name;
  record.at_ms = to_ms(fault.done.at - started_);
  record.in_recovery = planned.in_recovery;
  record.pause_ms = to_ms(std::max(planned.pause, planned.order.lasts));
  record.victim = victim_name(plan_, fault.done.victim);
  record.pid = fault.done.victim.name.pid;
  record.is_standby = fault.done.is_standby && !planned.in_recovery;
  record.is_hit = fault.done.is_hit;
  if (planned.is_at_point()) record.point = transport::to_string(planned.order.point);
  if (fault.done.second) {
    record.second = victim_name(plan_, *fault.done.second);
    record.second_pid = fault.done.second->name.pid;
  }
  record.num_unfinished = static_cast<int32_t>(fault.met.size());
  if (fault.met.size() < kMetMin)
    part_.find(fmt::format("fault {}: met only {} requests", number, fault.met.size()));
  open_.push_back(std::move(fault));
  return ok_status();
}

/// What stages have computed again since the last fault is that one's. With another before it was
/// over it cannot be told whose it is.
void ChaosRun::count_recomputed(bool is_alone) {
  std::vector<StageCounts> now = ranks_.by_stage();
  counted_.resize(now.size());
  if (!open_.empty()) {
    OpenFault& fault = open_.back();
    int64_t after = 0;
    for (size_t stage = 0; stage < now.size(); ++stage) {
      const auto again =
          static_cast<int64_t>(now[stage].recomputed() - counted_[stage].recomputed());
      fault.record.recomputed.push_back(again);
      if (static_cast<int32_t>(stage) > fault.done.stage.value_or(0)) after += again;
    }
    const bool is_of_one_stage = fault.kind == FaultKind::kill && !fault.done.second &&
                                 !fault.done.is_standby && fault.done.stage.has_value();
    if (is_alone && is_of_one_stage && !fault.record.in_recovery)
      fault.record.recomputed_after = after;
  }
  counted_ = std::move(now);
}

Status ChaosRun::await_ends() {
  ASSIGN_OR_RETURN(const bool ended, wait(kEndMax, [this] { return load_.unfinished().empty(); }));
  if (!ended)
    return make_error(ErrorCode::deadline_exceeded, "{} requests have not ended by their deadline",
                      load_.unfinished().size());
  // What a process held for them it gives back in its own time.
  ASSIGN_OR_RETURN([[maybe_unused]] const bool released,
                   wait(kReleaseMax, [this] { return leaked().num_fds == 0; }));
  const Holdings held = leaked();
  part_.leaked_bytes = held.private_bytes;
  part_.leaked_fds = held.num_fds;
  return ok_status();
}

void ChaosRun::finish() {
  judge_ended();
  count_recomputed(/*is_alone=*/true);
  for (const StageCounts& stage : counted_) {
    part_.refused_frames += static_cast<int64_t>(stage.frames_refused);
    part_.stale_frames += static_cast<int64_t>(stage.frames_stale);
  }
  for (OpenFault& fault : open_) {
    if (fault.done.stopped.valid()) send_signal(fault.done.stopped, SIGCONT);
    settle(fault);
  }
  open_.clear();
  on_part_(std::exchange(part_, {}));
}

Result<bool> ChaosRun::wait(Duration patience, const Condition& holds) {
  const TimePoint deadline = steady_clock().now() + patience;
  while (true) {
    RETURN_IF_ERROR(look());
    if (holds()) return true;
    if (steady_clock().now() >= deadline) return false;
    if (under_way_.is_stopped_within(kLookEvery)) return *under_way_.error();
  }
}

Status ChaosRun::look() {
  const TimePoint now = steady_clock().now();
  for (OpenFault& fault : open_)
    if (fault.done.stopped.valid() && now >= fault.stopped_until) {
      send_signal(fault.done.stopped, SIGCONT);
      fault.done.stopped.reset();
    }
  if (now - processes_seen_ >= kProcessesEvery) look_at_processes(now);
  judge_ended();
  look_at_faults(now);
  RETURN_IF_ERROR(service_.check_alive());
  if (const auto failure = load_.failure()) return *failure;
  return ok_status();
}

void ChaosRun::look_at_processes(TimePoint now) {
  std::vector<ServiceProcess> found = service_.processes();
  for (const ServiceProcess& process : processes_) {
    if (name_of(process.name.pid) == process.name) continue;
    if (!open_.empty()) open_.back().record.changed_pids.push_back(process.name.pid);
    if (victims_.contains(process.name)) continue;
    const std::string name = victim_name(plan_, process);
    const std::string said = service_.last_said(name);
    const std::string what = fmt::format(
        "{}, process {}, has ended though nothing was done to it; {}", name, process.name.pid,
        said.empty() ? "nobody said why" : "last said of it: " + said);
    part_.find(open_.empty() ? what
                             : fmt::format("fault {}: {}", open_.back().record.number, what));
    if (!open_.empty()) open_.back().record.foreign_pids.push_back(process.name.pid);
    victims_.insert(process.name);  // told once
  }
  processes_ = std::move(found);
  ranks_.look(processes_, now);
  processes_seen_ = now;
}

void ChaosRun::judge_ended() {
  for (const auto& request : load_.take_ended()) {
    const Status& end = request->end();
    const bool by_us = !end.ok() && end.error().code == ErrorCode::cancelled && under_way_.error();
    const Comparison found = Comparison::of(request->asked().answer, request->receipt(), end.ok());
    part_.lost += found.lost;
    part_.duplicated += found.duplicated;
    part_.differing += found.differing;
    if (!by_us) ++part_.num_requests;
    const bool has_failed = !end.ok() && !by_us;
    if (has_failed) ++part_.failed;
    if (found.is_equal() && !has_failed) continue;
    std::string what = fmt::format("request {}", request->number());
    for (const OpenFault& fault : open_)
      if (std::find(fault.met.begin(), fault.met.end(), request) != fault.met.end())
        what += fmt::format(", fault {}", fault.record.number);
    if (!found.is_equal()) what += ": " + found.first;
    if (has_failed) what += ": " + end.error().message;
    part_.find(std::move(what));
  }
}

bool ChaosRun::goes_on(const OpenFault& fault) const {
  if (fault.done.stopped.valid()) return false;
  const bool keeps_process = !entry_of(fault.kind).ends_process();
  const auto is_there = [&](const ServiceProcess& victim, bool is_the_same) {
    return std::any_of(processes_.begin(), processes_.end(), [&](const ServiceProcess& process) {
      return process.role == victim.role && process.number == victim.number &&
             (is_the_same || process.name != victim.name);
    });
  };
  if (!is_there(fault.done.victim, keeps_process)) return false;
  // One that was to die in the repair, and did not, is there.
  if (fault.done.second && !is_there(*fault.done.second, fault.done.is_hit == false)) return false;
  size_t num_on = 0;
  for (size_t i = 0; i < fault.met.size(); ++i) {
    const LiveRequest& request = *fault.met[i];
    const size_t on_the_way = kTokensOnTheWay * request.receipt().num_choices();
    const bool is_on =
        request.has_ended() || request.num_tokens() > fault.tokens_then[i] + on_the_way;
    // One that had no token may wait behind all others.
    if (!is_on && fault.tokens_then[i] > 0) return false;
    num_on += is_on;
  }
  return num_on >= kMetMin;
}

void ChaosRun::look_at_faults(TimePoint now) {
  for (OpenFault& fault : open_) {
    if (fault.is_over) continue;
    const bool in_vain = now - fault.done.at > kGoesOnMax;
    if (!in_vain && !goes_on(fault)) continue;
    fault.is_over = true;
    fault.went_on = now;
    if (!in_vain) fault.record.went_on_ms = to_ms(now - fault.done.at);
    if (in_vain)
      part_.find(fmt::format("fault {}: requests did not go on within {:.0f} s",
                             fault.record.number, to_seconds(kGoesOnMax)));
  }
  while (!open_.empty() && open_.front().is_over && open_.size() > 1 &&
         std::all_of(open_.front().met.begin(), open_.front().met.end(),
                     [](const auto& request) { return request->has_ended(); })) {
    judge_ended();
    settle(open_.front());
    open_.erase(open_.begin());
    on_part_(std::exchange(part_, {}));
  }
}

/// What it met has ended.
void ChaosRun::settle(OpenFault& fault) {
  const TimePoint went_on = fault.is_over ? fault.went_on : steady_clock().now();
  for (const auto& request : fault.met) {
    if (!request->has_ended()) continue;
    std::optional<Duration> longest;
    for (size_t i = 0; i < request->receipt().num_choices(); ++i)
      if (const auto gap = gap_across(request->receipt().times(i), fault.done.at, went_on))
        longest = std::max(longest.value_or(Duration(0)), *gap);
    if (longest) fault.record.gaps_ms.push_back(to_ms(*longest));
  }
  // Another victim's death, before all that this one met had ended, may be what stages computed
  // for.
  if (fault.record.changed_pids.size() > 1) fault.record.recomputed_after.reset();
  part_.faults.push_back(std::move(fault.record));
}

Holdings ChaosRun::leaked() const {
  Holdings out;
  for (const auto& [process, before] : warm_) {
    if (name_of(process.name.pid) != process.name) continue;
    const auto held = holdings_of(process.name.pid);
    if (!held) continue;
    out.private_bytes += std::max<int64_t>(0, held->private_bytes - before.private_bytes);
    out.num_fds += std::max<int64_t>(0, held->num_fds - before.num_fds);
  }
  return out;
}

}  // namespace chainpump::cli
