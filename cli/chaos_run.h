// Injects faults into a service under load, and judges what its clients receive: the part of
// `chainpump chaos` that has time. It does nothing in between but look, often: at the service's
// processes, at what has ended, at stops that are over. One thread.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "cli/chaos_inject.h"
#include "cli/chaos_load.h"
#include "cli/chaos_ranks.h"
#include "cli/chaos_report.h"
#include "cli/chaos_schedule.h"
#include "cli/chaos_service.h"

namespace chainpump::cli {

struct ChaosTask {
  uint64_t seed = 1;
  std::vector<FaultKind> kinds;
  uint64_t first_fault = 0;
  uint64_t end_fault = std::numeric_limits<uint64_t>::max();
  Duration duration = Duration::max();  // after which no fault is begun
};

class ChaosRun {
 public:
  /// All of these outlive it. What is found goes to `on_part`, a part for each fault that is over,
  /// in order, and one in the end.
  ChaosRun(const ChaosTask& task, const graph::Plan& plan, ChaosService& service, ChaosRanks& ranks,
           ChaosLoad& load, UnderWay& under_way, std::function<void(ChaosReport)> on_part);
  ~ChaosRun();

  /// Until the last fault's requests have ended. An error if the service has failed, or `under_way`
  /// was stopped; what was found until then has been handed over. Once.
  Status run();

 private:
  /// A fault that was injected, until all requests that it met have ended.
  struct OpenFault {
    FaultRecord record;
    FaultKind kind = FaultKind::kill;
    InjectedFault done;
    ChaosLoad::Requests met;
    std::vector<size_t> tokens_then;  // of each that it met
    TimePoint stopped_until;
    bool is_over = false;  // requests have gone on, or were waited for in vain
    TimePoint went_on;
  };
  using Condition = std::function<bool()>;

  Status warm_up();
  Status inject_all();
  Status inject(uint64_t number);
  Status wait_for_turn(const PlannedFault& fault);
  void mark_victims(const ServiceProcess& victim);
  Status await_ends();
  void finish();

  /// Looks until the condition holds: false if it does not within the time.
  Result<bool> wait(Duration patience, const Condition& holds);
  Status look();
  void look_at_processes(TimePoint now);
  void judge_ended();
  void look_at_faults(TimePoint now);
  bool goes_on(const OpenFault& fault) const;
  void settle(OpenFault& fault);
  void count_recomputed(bool is_alone);
  Holdings leaked() const;

  const ChaosTask& task_;
  const graph::Plan& plan_;
  ChaosService& service_;
  ChaosRanks& ranks_;
  ChaosLoad& load_;
  UnderWay& under_way_;
  const std::function<void(ChaosReport)> on_part_;
  FaultInjector injector_;

  TimePoint started_;
  TimePoint processes_seen_;
  std::vector<ServiceProcess> processes_;
  std::set<ProcessName> victims_;
  std::map<FaultKind, TimePoint> last_of_kind_;
  std::map<ServiceProcess, Holdings> warm_;  // of those that should live through all
  std::vector<StageCounts> counted_;         // when the last fault came
  std::vector<OpenFault> open_;              // in order
  ChaosReport part_;                         // since the last was handed over
};

}  // namespace chainpump::cli
