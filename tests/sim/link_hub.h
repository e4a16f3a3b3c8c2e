// Where the two ends of each link meet, and what the stages of a lane have in common while they are
// linked in one epoch. An end waits here until the other has come; a stray frame finds the link
// that its edge has now. One thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "graph/plan.h"
#include "tests/sim/sim_link.h"

namespace chainpump::sim {

class SimStage;

/// What a lane's first stage held after each microbatch, for those that come after it to compare.
struct StageAccount {
  int32_t num_blocks = 0;
  size_t num_sequences = 0;
  bool operator==(const StageAccount&) const = default;
};

/// One epoch of a lane's links.
struct LaneRun {
  PlanEpoch epoch;
  std::map<uint64_t, StageAccount> accounts;  // by microbatch
  std::vector<SimStage*> stages;              // that are to be linked in it
};

class LinkHub {
 public:
  using OnOpen = std::function<void(std::shared_ptr<SimLink>)>;
  LinkHub(SimWorld& world, const Scenario& scenario) : world_(world), scenario_(scenario) {}

  /// What an epoch of a lane has in common.
  std::shared_ptr<LaneRun> run(graph::LaneId lane, PlanEpoch epoch);

  /// The end at the stage the edge comes from, and that at the one it goes to; both are told when
  /// both are there. Edges are numbered by the stage they come from; the last one returns.
  void offer(graph::LaneId lane, int edge, PlanEpoch epoch, SimLink::End sender, OnOpen on_open);
  void accept(graph::LaneId lane, int edge, PlanEpoch epoch, SimLink::End receiver, OnOpen on_open);

  /// Some link of a lane breaks, if it has one; which one is drawn.
  bool break_one(graph::LaneId lane);
  void check_books() const;
  bool at_rest() const;

 private:
  struct Waiting {
    std::optional<SimLink::End> sender, receiver;
    OnOpen on_sender, on_receiver;
  };
  using Edge = std::pair<graph::LaneId, int>;
  void join(const Edge& edge, PlanEpoch epoch);

  SimWorld& world_;
  const Scenario& scenario_;
  std::map<std::pair<Edge, PlanEpoch>, Waiting> waiting_;
  std::map<Edge, std::shared_ptr<SimLink>> newest_;
  std::map<graph::LaneId, std::shared_ptr<LaneRun>> runs_;  // the newest of each lane
};

}  // namespace chainpump::sim
