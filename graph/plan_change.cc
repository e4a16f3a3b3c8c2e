#include "graph/plan_change.h"

#include <algorithm>

namespace chainpump::graph {
namespace {

constexpr int64_t kRankOverheadBytes = int64_t{16} << 20;

/// All that ranks are told of, and compute by.
Plan as_ranks_see(Plan plan) {
  plan.failover_restarts = 0;
  plan.failover_window = Duration(0);
  plan.failover_evicts_slow = false;
  plan.nodes.clear();
  for (StagePlan& stage : plan.stages) stage.predicted_decode_s = stage.predicted_prefill_s = 0;
  return plan;
}

bool is_on_nodes(const Plan& plan) {
  return std::any_of(plan.nodes.begin(), plan.nodes.end(),
                     [](const NodePlan& node) { return !node.name.empty(); });
}

Error needs_restart(std::string_view key) {
  return make_error(ErrorCode::invalid_argument,
                    "{} cannot be changed while the service runs: end it, and start it with the "
                    "new graph file",
                    key);
}

Error takes_away(std::string_view key, int64_t now, int64_t next) {
  return make_error(ErrorCode::invalid_argument,
                    "{} would be {}, less than the {} that requests may be using: it can only grow "
                    "while the service runs",
                    key, next, now);
}

}  // namespace

Status may_change(const Plan& now, const Plan& next) {
  if (now.model_path != next.model_path) return needs_restart("model");
  if (now.exact_activations != next.exact_activations) return needs_restart("activations");
  if (now.kv.type != next.kv.type || now.kv.block_tokens != next.kv.block_tokens)
    return needs_restart("kv.type");
  if ((now.failover_restarts == 0) != (next.failover_restarts == 0))
    return make_error(ErrorCode::invalid_argument,
                      "failover.restarts cannot be changed from or to 0 while the service runs: "
                      "end it, and start it with the new graph file");
  if (is_on_nodes(now) || is_on_nodes(next))
    return make_error(ErrorCode::unimplemented,
                      "a deployment over the nodes of a cluster cannot be changed yet while it "
                      "runs: end it, and start it with the new graph file");
  if (now.stages.back().layer_end != next.stages.back().layer_end) return needs_restart("model");
  if (next.context_tokens < now.context_tokens)
    return takes_away("kv.context", now.context_tokens, next.context_tokens);
  if (next.kv.num_blocks < now.kv.num_blocks)
    return takes_away("the number of KV blocks of a lane (kv.budget, kv.blocks)", now.kv.num_blocks,
                      next.kv.num_blocks);
  return ok_status();
}

bool ranks_differ(const Plan& now, const Plan& next) {
  return as_ranks_see(now) != as_ranks_see(next);
}

std::vector<KvRoute> kv_routes(const Plan& now, const Plan& next) {
  std::vector<KvRoute> routes;
  for (uint32_t to = 0; to < static_cast<uint32_t>(num_ranks(next)); ++to) {
    const StagePlan& taker =
        next.stages[static_cast<size_t>(place_of(next, RankId(to)).stage.value)];
    const std::vector<LaneId> wanted = lanes_of(next, RankId(to));
    for (uint32_t from = 0; from < static_cast<uint32_t>(num_ranks(now)); ++from) {
      const StagePlan& giver =
          now.stages[static_cast<size_t>(place_of(now, RankId(from)).stage.value)];
      KvRoute route{.from = RankId(from),
                    .to = RankId(to),
                    .layer_begin = std::max(taker.layer_begin, giver.layer_begin),
                    .layer_end = std::min(taker.layer_end, giver.layer_end)};
      if (route.layer_begin >= route.layer_end) continue;
      for (const LaneId lane : lanes_of(now, RankId(from)))
        if (std::find(wanted.begin(), wanted.end(), lane) != wanted.end())
          route.lanes.push_back(lane);
      if (!route.lanes.empty()) routes.push_back(std::move(route));
    }
  }
  std::stable_sort(routes.begin(), routes.end(), [](const KvRoute& a, const KvRoute& b) {
    return std::pair(a.to, a.layer_begin) < std::pair(b.to, b.layer_begin);
  });
  return routes;
}

int64_t bytes_of(const Plan& plan) {
  int64_t bytes = 0;
  for (const StagePlan& stage : plan.stages) {
    const auto ranks = static_cast<int64_t>(stage.devices.size());
    const int64_t log = stage.has_head ? 0 : plan.replay_log_bytes;
    bytes += ranks * (stage.slot_bytes + log);
    bytes += (ranks + stage.standbys) * (stage.weight_bytes + stage.kv_bytes + kRankOverheadBytes);
  }
  return bytes;
}

}  // namespace chainpump::graph
