#include "cli/chaos_inject.h"

#include <signal.h>

#include <algorithm>

namespace chainpump::cli {
namespace {

using transport::FaultOrder;
using transport::FaultPoint;

constexpr Duration kVictimMax = std::chrono::seconds(30);  // until there is one
constexpr Duration kPointMax = std::chrono::seconds(3);    // until one that is armed has died of it
constexpr Duration kRepairMax = std::chrono::seconds(8);   // the same, of a repair

using Processes = std::vector<ServiceProcess>;

/// The same one of the same seed, as long as there are as many.
const ServiceProcess& nth(const Processes& choice, double share) {
  return choice[std::min(choice.size() - 1,
                         static_cast<size_t>(share * static_cast<double>(choice.size())))];
}

}  // namespace

Processes FaultInjector::all_of(ServiceRole role) const {
  Processes choice = service_.processes();
  std::erase_if(choice, [role](const auto& each) { return each.role != role; });
  return choice;
}

Result<ServiceProcess> FaultInjector::pick(const PlannedFault& planned, bool at_work) {
  const ServiceRole role = entry_of(planned.kind).victim;
  Processes choice;
  ASSIGN_OR_RETURN(const bool found, wait_(kVictimMax, [&] {
                     choice = at_work ? ranks_.at_work() : all_of(role);
                     return !choice.empty();
                   }));
  if (!found)
    return make_error(ErrorCode::deadline_exceeded, "the service has no {} any more",
                      to_string(role));
  if (at_work) return nth(choice, planned.victim);
  // By its number, or the next one, while it is away.
  const int32_t num_places = role == ServiceRole::rank ? graph::num_processes(plan_) : 1;
  const auto wanted = static_cast<uint32_t>(planned.victim * num_places);
  const auto victim = std::find_if(choice.begin(), choice.end(),
                                   [wanted](const auto& each) { return each.number >= wanted; });
  return victim == choice.end() ? choice.front() : *victim;
}

bool FaultInjector::shares_lane(const ServiceProcess& a, const ServiceProcess& b) const {
  const std::vector<uint8_t> others = ranks_.lanes_of(b);
  const std::vector<uint8_t> lanes = ranks_.lanes_of(a);
  return std::any_of(lanes.begin(), lanes.end(), [&](uint8_t lane) {
    return std::find(others.begin(), others.end(), lane) != others.end();
  });
}

/// Nobody if there is no such rank now.
std::optional<ServiceProcess> FaultInjector::pick_second(const PlannedFault& planned,
                                                         const ServiceProcess& victim) const {
  const Second which = entry_of(planned.kind).second;
  const Processes working = ranks_.at_work();
  const std::optional<int32_t> stage = ranks_.stage_of(victim);
  const auto num_stages = static_cast<int32_t>(plan_.stages.size());
  Processes choice =
      which == Second::any_rank || which == Second::standby ? all_of(ServiceRole::rank) : working;
  std::erase_if(choice, [&](const ServiceProcess& each) {
    if (each == victim) return true;
    switch (which) {
      case Second::nobody:
        return true;
      case Second::any_rank:
        return false;
      case Second::first_rank:
        return ranks_.stage_of(each) != 0;
      case Second::standby:
        return std::find(working.begin(), working.end(), each) != working.end() ||
               ranks_.stage_of(each) != stage;
      case Second::next_rank:
        return !stage || ranks_.stage_of(each) != (*stage + 1) % num_stages ||
               !shares_lane(each, victim);
    }
    return true;
  });
  return choice.empty() ? std::nullopt : std::optional(nth(choice, planned.second));
}

bool FaultInjector::kill(const ServiceProcess& process) {
  const Result<UniqueFd> held = open_process(process.name);
  if (!held.ok()) return false;
  mark_(process);
  return send_signal(*held, SIGKILL);
}

InjectedFault FaultInjector::meeting(const ServiceProcess& victim) const {
  InjectedFault fault;
  fault.victim = victim;
  if (victim.role != ServiceRole::rank) return fault;
  const Processes working = ranks_.at_work();
  fault.is_standby = std::find(working.begin(), working.end(), victim) == working.end();
  fault.stage = ranks_.stage_of(victim);
  return fault;
}

Result<InjectedFault> FaultInjector::inject(const PlannedFault& planned) {
  switch (planned.order.kind) {
    case FaultOrder::Kind::nothing:
      return signal(planned);
    case FaultOrder::Kind::death:
      return is_of_repair(planned.order.point) ? die_in_repair(planned) : die_at_point(planned);
    case FaultOrder::Kind::slowness:
    case FaultOrder::Kind::silence:
    case FaultOrder::Kind::damage:
      return arm(planned);
  }
  return signal(planned);
}

Result<InjectedFault> FaultInjector::signal(const PlannedFault& planned) {
  const bool is_stop = entry_of(planned.kind).is_stop;
  while (true) {
    // Of a pair with one that stands by, or of two neighbours, the first is at work.
    const Second which = entry_of(planned.kind).second;
    const bool at_work = which == Second::standby || which == Second::next_rank;
    ASSIGN_OR_RETURN(const ServiceProcess victim, pick(planned, at_work));
    InjectedFault fault = meeting(victim);
    fault.second = pick_second(planned, victim);
    Result<UniqueFd> process = open_process(victim.name);
    if (!process.ok()) {
      if (process.error().code == ErrorCode::not_found) {
        // It has just gone: there is another by and by.
        ASSIGN_OR_RETURN([[maybe_unused]] const bool gone, wait_(kVictimMax, [&] {
                           return !name_of(victim.name.pid) ||
                                  name_of(victim.name.pid) != victim.name;
                         }));
        continue;
      }
      return process.error();
    }
    mark_(victim);
    if (fault.second) mark_(*fault.second);
    fault.at = steady_clock().now();
    send_signal(*process, is_stop ? SIGSTOP : SIGKILL);
    if (fault.second && !kill(*fault.second)) fault.second.reset();
    if (is_stop) fault.stopped = std::move(*process);
    return fault;
  }
}

Result<InjectedFault> FaultInjector::arm(const PlannedFault& planned) {
  ASSIGN_OR_RETURN(const ServiceProcess victim, pick(planned, /*at_work=*/true));
  InjectedFault fault = meeting(victim);
  mark_(victim);
  fault.at = steady_clock().now();
  fault.is_hit = ranks_.arm(victim, planned.order).ok();
  return fault;
}

Result<bool> FaultInjector::has_died(const ServiceProcess& rank, const FaultOrder& order,
                                     Duration patience) {
  ASSIGN_OR_RETURN([[maybe_unused]] const bool gone,
                   wait_(patience, [&] { return name_of(rank.name.pid) != rank.name; }));
  return service_.has_said(
      fmt::format("process {} dies at {}", rank.name.pid, transport::to_string(order.point)));
}

Result<InjectedFault> FaultInjector::die_at_point(const PlannedFault& planned) {
  ASSIGN_OR_RETURN(const ServiceProcess victim, pick(planned, /*at_work=*/true));
  InjectedFault fault = meeting(victim);
  mark_(victim);
  fault.at = steady_clock().now();
  fault.is_hit = false;
  if (ranks_.arm(victim, planned.order).ok()) {
    ASSIGN_OR_RETURN(fault.is_hit, has_died(victim, planned.order, kPointMax));
    fault.at = steady_clock().now();
  }
  if (!*fault.is_hit) kill(victim);
  return fault;
}

Result<InjectedFault> FaultInjector::die_in_repair(const PlannedFault& planned) {
  ASSIGN_OR_RETURN(ServiceProcess victim, pick(planned, /*at_work=*/true));
  // After the first rank's end everything is computed anew, and nothing filled.
  const bool fills = planned.order.point == FaultPoint::filling;
  const Processes working = ranks_.at_work();
  if (fills && ranks_.stage_of(victim) == 0)
    for (const ServiceProcess& each : working)
      if (ranks_.stage_of(each) == 1 && shares_lane(each, victim)) victim = each;
  InjectedFault fault = meeting(victim);
  const bool stands_in = planned.order.point == FaultPoint::connecting;
  Processes choice = stands_in ? all_of(ServiceRole::rank) : working;
  std::erase_if(choice, [&](const ServiceProcess& each) {
    const bool works = std::find(working.begin(), working.end(), each) != working.end();
    return each == victim || !shares_lane(each, victim) ||
           (!works && ranks_.stage_of(each) != fault.stage);
  });
  fault.is_hit = false;
  if (!choice.empty()) {
    fault.second = nth(choice, planned.second);
    mark_(*fault.second);
  }
  const bool armed = fault.second && ranks_.arm(*fault.second, planned.order).ok();
  fault.at = steady_clock().now();
  kill(victim);
  if (!armed) return fault;
  ASSIGN_OR_RETURN(fault.is_hit, has_died(*fault.second, planned.order, kRepairMax));
  if (!*fault.is_hit) (void)ranks_.arm(*fault.second, {});
  return fault;
}

}  // namespace chainpump::cli
