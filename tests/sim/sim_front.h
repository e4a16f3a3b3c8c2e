// What a lane's first stage has beside the others: the real sequencer, and the door at which the
// gateway is attached (as actors/lane_server.h). Whatever the sequencer says must be for a choice
// that has not ended, of a client that is still there. Counts what each tenant is served while all
// of them wait. One thread.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "graph/router.h"
#include "graph/sequencer.h"
#include "tests/sim/preemption_check.h"
#include "tests/sim/repair_check.h"
#include "tests/sim/result_stream.h"
#include "tests/sim/sim_link.h"
#include "tests/sim/stage_memory.h"

namespace chainpump::sim {

inline constexpr size_t kTenants = 3;

class SimFront {
 public:
  /// `awake`: when its process can do something; `wake`: there may be something to do.
  SimFront(SimWorld& world, const Scenario& scenario, graph::LaneId lane,
           std::function<void(std::function<void()>)> awake, std::function<void()> wake);

  /// Its lane was at work before it was there.
  void set_new() { is_new_ = true; }

  // The door.
  void attach(const std::shared_ptr<ResultStream>& client) { clients_.push_back(client); }
  void detach(const std::shared_ptr<ResultStream>& client);
  /// `wire`: the client's number for it.
  void submit(const std::shared_ptr<ResultStream>& client, uint64_t wire, graph::Request request);
  void cancel(const std::shared_ptr<ResultStream>& client, uint64_t wire,
              std::optional<uint32_t> choice);

  // The stage.
  std::optional<SimFrame> form(const std::vector<const StageMemory*>& stages);
  void take_result(const SimFrame& frame);
  /// After a repair; the first time of one that is new, what others hold is adopted.
  void repair(std::vector<graph::StageHoldings> holdings);

  const graph::Sequencer& sequencer() const { return sequencer_; }
  void check_books() const;
  void check_idle() const;
  bool is_idle() const { return sequencer_.idle() && sequencer_.stats().num_orphans == 0; }
  /// Each tenant's tokens over its weight, while all waited.
  const std::array<double, kTenants>& served() const { return served_; }

 private:
  struct Entry {
    std::shared_ptr<ResultStream> client;
    uint64_t wire = 0;
    std::set<uint32_t> open;  // choices that have not ended
  };
  void on_time();
  void deliver(const graph::Deliveries& out);
  Entry* find(const graph::Choice& choice);
  void end(const graph::Choice& choice, Result<graph::FinishReason> how);
  graph::LaneStats stats(uint64_t num_taken) const;
  void count_served(const graph::Microbatch& microbatch);

  SimWorld& world_;
  const Scenario& scenario_;
  const graph::LaneId lane_;
  const graph::SequencerOptions& options_;
  const std::function<void(std::function<void()>)> awake_;
  const std::function<void()> wake_;
  graph::Sequencer sequencer_;
  std::vector<std::shared_ptr<ResultStream>> clients_;
  std::map<RequestId, Entry> entries_;
  bool is_new_ = false;  // and others may hold what an earlier one has described
  std::vector<uint64_t> forgotten_;
  std::optional<SimFrame> last_result_;  // planted
  PreemptionCheck preemptions_{kBlockTokens};

  // Of saturated runs.
  std::array<int, kTenants> waiting_{};
  std::array<double, kTenants> weights_{};
  std::array<double, kTenants> served_{};
  std::map<SequenceId, uint32_t> tenant_of_;
  std::set<int32_t> seen_;  // requests that have been described
  bool all_wait_ = true;
};

}  // namespace chainpump::sim
