// One lane in virtual time: its sequencer at the first rank, its stages' ports, the links between
// them and the return link; one incarnation after the other, since the close of a link ends it.
// Counts what each tenant is served while all of them wait. One thread.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "graph/router.h"
#include "graph/sequencer.h"
#include "tests/sim/preemption_check.h"
#include "tests/sim/sim_rank.h"

namespace chainpump::sim {

inline constexpr size_t kTenants = 3;

class SimLane {
 public:
  /// `ranks`: of its stages. `deliver`: what results and time have made.
  SimLane(SimWorld& world, const Scenario& scenario, const graph::SequencerOptions& options,
          std::vector<SimRank*> ranks, std::function<void(const graph::Deliveries&)> deliver);

  /// A new incarnation, with nothing in it.
  void start();
  /// A link of it delivers nothing any more; nobody knows yet.
  void close_link(size_t index);
  void end();
  /// Some of its stages' ranks have died, not the first's; they are back after `restart`. What the
  /// stages after them hold comes to its result before the rest of what is under way is void.
  void lose(const SimRank* rank, Duration restart);
  bool uses(const SimRank* rank) const;
  bool sequenced_at(const SimRank* rank) const { return ranks_[0] == rank; }
  bool serving() const { return sequencer_ != nullptr; }
  uint32_t incarnation() const { return incarnation_; }

  Status submit(graph::Request request);
  Duration retry_after() const { return sequencer_->retry_after(); }
  void cancel(RequestId id, uint64_t seed);
  void cancel(RequestId id, uint32_t choice);
  graph::LaneStats stats() const;
  /// Over all incarnations.
  graph::SequencerStats totals() const;

  void check_books() const;
  void check_idle() const;
  /// Each tenant's tokens over its weight, while all waited.
  const std::array<double, kTenants>& served() const { return served_; }

 private:
  void make_links();
  std::shared_ptr<SimLink> make_link(size_t from, int32_t credits);
  void try_repair();
  bool drained() const;
  void plant_bug(graph::StageHoldings& holdings) const;
  void repair();
  void check_minimal(const graph::Microbatch& microbatch);
  graph::StageSpan least_span(KvBlockId block, int32_t offset, bool needs_result) const;
  std::optional<SimFrame> form();
  void on_result(SimFrame frame);
  void on_time();
  void pass_on(const graph::Deliveries& out);
  void count_served(const graph::Microbatch& microbatch);

  SimWorld& world_;
  const Scenario& scenario_;
  const graph::SequencerOptions& options_;
  std::vector<SimRank*> ranks_;
  std::function<void(const graph::Deliveries&)> deliver_;
  uint32_t incarnation_ = 0;
  std::unique_ptr<graph::Sequencer> sequencer_;
  std::vector<std::shared_ptr<StagePort>> ports_;
  std::vector<std::shared_ptr<SimLink>> links_;  // [i]: from stage i; the last one returns
  std::vector<uint64_t> forgotten_;
  std::set<size_t> dead_;  // stages
  TimePoint repair_at_;
  uint64_t last_formed_ = 0;
  std::optional<SimFrame> last_result_;                 // planted
  std::map<size_t, graph::StageHoldings> held_before_;  // likewise
  PreemptionCheck preemptions_{kBlockTokens};
  uint64_t num_taken_ = 0;
  graph::SequencerStats totals_;

  // Of saturated runs.
  std::array<int, kTenants> waiting_{};
  std::array<double, kTenants> weights_{};
  std::array<double, kTenants> served_{};
  std::map<SequenceId, uint32_t> tenant_of_;
  std::set<uint64_t> seen_;  // seeds that have been described
  bool all_wait_ = true;
};

}  // namespace chainpump::sim
