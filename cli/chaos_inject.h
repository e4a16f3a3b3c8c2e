// How `chainpump chaos` does one planned fault: whom it meets among the processes that there are,
// and what is done to them.
//
//   fault               victim                        done
//   kill, pairs         of all of its role            SIGKILL; of the second right after it
//   kill at a point     a rank at work                armed; killed all the same if it has not
//                                                     passed the point in time
//   of a repair         the second: another of the    armed; then SIGKILL of the victim, whose
//                       lane, or who is to stand in   repair takes the second there
//   stop                a rank, standbys included     SIGSTOP; SIGCONT is the caller's
//   slow, partition,    a rank at work                armed
//   corrupt
// One thread.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "base/unique_fd.h"
#include "cli/chaos_ranks.h"
#include "cli/chaos_schedule.h"
#include "cli/chaos_service.h"
#include "graph/plan.h"

namespace chainpump::cli {

struct InjectedFault {
  TimePoint at;
  ServiceProcess victim;
  std::optional<ServiceProcess> second;
  UniqueFd stopped;  // the victim, of a stop
  std::optional<bool>
      is_hit;               // of what a rank was told to do to itself: it did, as far as is known
  bool is_standby = false;  // the victim served no lane when it was looked at last
  std::optional<int32_t> stage;  // the victim's, of a rank
};

class FaultInjector {
 public:
  using Condition = std::function<bool()>;
  /// Looks until the condition holds; false if it does not in that time.
  using Wait = std::function<Result<bool>(Duration, const Condition&)>;
  /// Whose end is no wonder from now on.
  using Mark = std::function<void(const ServiceProcess&)>;

  /// All of these outlive it.
  FaultInjector(const graph::Plan& plan, ChaosService& service, ChaosRanks& ranks, Wait wait,
                Mark mark)
      : plan_(plan),
        service_(service),
        ranks_(ranks),
        wait_(std::move(wait)),
        mark_(std::move(mark)) {}

  /// deadline_exceeded: there is nobody whom it could meet, for long.
  Result<InjectedFault> inject(const PlannedFault& planned);

 private:
  using Processes = std::vector<ServiceProcess>;
  Processes all_of(ServiceRole role) const;
  Result<ServiceProcess> pick(const PlannedFault& planned, bool at_work);
  std::optional<ServiceProcess> pick_second(const PlannedFault& planned,
                                            const ServiceProcess& victim) const;
  Result<InjectedFault> signal(const PlannedFault& planned);
  Result<InjectedFault> arm(const PlannedFault& planned);
  Result<InjectedFault> die_at_point(const PlannedFault& planned);
  Result<InjectedFault> die_in_repair(const PlannedFault& planned);
  Result<bool> has_died(const ServiceProcess& rank, const transport::FaultOrder& order,
                        Duration patience);
  bool shares_lane(const ServiceProcess& a, const ServiceProcess& b) const;
  /// False if it is gone already.
  bool kill(const ServiceProcess& process);
  InjectedFault meeting(const ServiceProcess& victim) const;

  const graph::Plan& plan_;
  ChaosService& service_;
  ChaosRanks& ranks_;
  const Wait wait_;
  const Mark mark_;
};

}  // namespace chainpump::cli
