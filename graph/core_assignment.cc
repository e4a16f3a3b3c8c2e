#include "graph/core_assignment.h"

#include <algorithm>

namespace chainpump::graph {
namespace {

class Assignment {
 public:
  Assignment(const Graph& graph, const std::vector<Node>& nodes,
             const std::vector<std::vector<size_t>>& homes, std::vector<StagePlan>& stages)
      : graph_(graph), nodes_(nodes), candidates_(homes), stages_(stages) {}

  /// A stage's ranks have as many threads each as there are for them where that is least.
  Result<bool> assign() {
    for (StagePlan& stage : stages_) stage.num_threads = 0;
    for (size_t node = 0; node < nodes_.size(); ++node) RETURN_IF_ERROR(count_threads(node));
    for (size_t node = 0; node < nodes_.size(); ++node) give_cores(node);
    if (shared_ && graph_.spin == SpinPolicy::always)
      return make_error(ErrorCode::invalid_argument,
                        "spin: always needs a core for every thread; here threads outnumber the {} "
                        "cores",
                        cores_of(0).size());
    return shared_;
  }

 private:
  size_t home(size_t stage, size_t seat) const {
    return candidates_[stage][seat % candidates_[stage].size()];
  }
  std::vector<size_t> replicas_on(size_t stage, size_t node) const {
    std::vector<size_t> found;
    for (size_t replica = 0; replica < stages_[stage].devices.size(); ++replica)
      if (home(stage, replica) == node) found.push_back(replica);
    return found;
  }

  std::vector<int> cores_of(size_t node) const {
    const std::vector<int>& cores = nodes_[node].machine.cores;
    return cores.empty() ? std::vector<int>{0} : cores;
  }

  /// Auto stages share the cores that no stage has claimed, and replicas those of their stage, if
  /// there is one for each.
  Status count_threads(size_t node) {
    const std::vector<int> cores = cores_of(node);
    std::vector<int>& free = free_.emplace_back(cores);
    std::vector<int> claimed;
    size_t num_auto = 0;  // ranks
    for (size_t i = 0; i < stages_.size(); ++i) {
      const Stage& stage = graph_.stages[i];
      const size_t replicas = replicas_on(i, node).size();
      if (replicas == 0) continue;
      num_auto += stage.device.cores.empty() ? replicas : 0;
      for (const int core : stage.device.cores) {
        if (std::find(cores.begin(), cores.end(), core) == cores.end())
          return make_error(ErrorCode::invalid_argument,
                            "stage '{}': core {} is not one this process may use", stage.name,
                            core);
        shared_ |= std::find(claimed.begin(), claimed.end(), core) != claimed.end();
        claimed.push_back(core);
        std::erase(free, core);
      }
    }
    const size_t auto_threads = std::max<size_t>(1, free.size() / std::max<size_t>(1, num_auto));
    for (size_t i = 0; i < stages_.size(); ++i) {
      const Stage& from = graph_.stages[i];
      const size_t replicas = replicas_on(i, node).size();
      if (replicas == 0) continue;
      const size_t own = own_cores(from, replicas);
      const int32_t asked = from.threads > 0 ? from.threads : graph_.threads;
      const auto here = asked > 0 ? asked : static_cast<int32_t>(own ? own : auto_threads);
      int32_t& num_threads = stages_[i].num_threads;
      num_threads = num_threads == 0 ? here : std::min(num_threads, here);
    }
    return ok_status();
  }

  /// Of those that a stage claims, for each of its ranks on a node.
  static size_t own_cores(const Stage& stage, size_t replicas) {
    const size_t claims = stage.device.cores.size();
    return claims == 0 ? 0 : std::max<size_t>(1, claims / replicas);
  }

  /// Where threads outnumber cores nobody is pinned (the system balances them better) and nobody
  /// spins.
  void give_cores(size_t node) {
    size_t wanted = 0;
    for (size_t i = 0; i < stages_.size(); ++i) {
      const std::vector<size_t> replicas = replicas_on(i, node);
      if (replicas.empty()) continue;
      StagePlan& stage = stages_[i];
      const std::vector<int>& claims = graph_.stages[i].device.cores;
      const size_t own = own_cores(graph_.stages[i], replicas.size());
      const auto threads = static_cast<size_t>(stage.num_threads);
      if (own == 0) wanted += threads * replicas.size();
      shared_ |= own > 0 && (threads > own || own * replicas.size() > claims.size());
      for (size_t r = 0; r < replicas.size(); ++r)
        for (size_t t = 0; own > 0 && t < threads; ++t)
          stage.devices[replicas[r]].cores.push_back(claims[(r * own + t % own) % claims.size()]);
    }
    shared_ |= wanted > free_[node].size();
    if (wanted <= free_[node].size()) pin_auto_stages(node);
  }

  void pin_auto_stages(size_t node) {
    size_t next = 0;
    size_t most = 0;
    for (const StagePlan& stage : stages_) most = std::max(most, stage.devices.size());
    for (size_t replica = 0; replica < most; ++replica)
      for (size_t i = 0; i < stages_.size(); ++i) {
        StagePlan& stage = stages_[i];
        if (!graph_.stages[i].device.cores.empty() || replica >= stage.devices.size() ||
            home(i, replica) != node)
          continue;
        for (int32_t t = 0; t < stage.num_threads; ++t)
          stage.devices[replica].cores.push_back(free_[node][next++]);
      }
  }

  const Graph& graph_;
  const std::vector<Node>& nodes_;
  const std::vector<std::vector<size_t>>& candidates_;
  std::vector<StagePlan>& stages_;
  std::vector<std::vector<int>> free_;  // that no stage claims, by node
  bool shared_ = false;
};

}  // namespace

Result<bool> assign_cores(const Graph& graph, const std::vector<Node>& nodes,
                          const std::vector<std::vector<size_t>>& candidates,
                          std::vector<StagePlan>& stages) {
  return Assignment(graph, nodes, candidates, stages).assign();
}

}  // namespace chainpump::graph
