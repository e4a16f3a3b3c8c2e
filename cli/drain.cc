#include "cli/drain.h"

#include <charconv>
#include <cstdio>

#include "actors/os/memory.h"
#include "cli/coordinator_call.h"
#include "cli/exit_status.h"
#include "cli/status.h"
#include "gateway/service_folder.h"
#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;

/// Both processes are there for a while. A standby is there already.
Status check_room(const graph::Plan& plan, RankId rank) {
  const graph::StagePlan& stage =
      plan.stages[static_cast<size_t>(place_of(plan, rank).stage.value)];
  if (stage.standbys > 0) return ok_status();
  const int64_t needed = stage.weight_bytes + stage.kv_bytes + stage.slot_bytes;
  const int64_t there = os::usable_memory_bytes();
  if (needed <= there) return ok_status();
  return make_error(ErrorCode::no_room,
                    "{} has to be there twice for a while, which takes {} bytes more; {} are free",
                    rank_name(plan, rank), needed, there);
}

Status drain(const DrainOptions& options) {
  ASSIGN_OR_RETURN(const auto service, find_service(options.service));
  const gateway::DeploymentInfo& deployment = service->deployment();
  ASSIGN_OR_RETURN(const RankId rank, find_rank(deployment.plan, options.rank));
  RETURN_IF_ERROR(check_room(deployment.plan, rank));
  std::fprintf(stderr, "[moving %s]\n", rank_name(deployment.plan, rank).c_str());
  return call_coordinator(gateway::service_folder(deployment.graph_name).string(),
                          [rank](rpc::CoordinatorClient& client, Duration deadline,
                                 rpc::OnMoveProgress on_progress, rpc::Callback<Ok> callback) {
                            client.move(rank.value, deadline, std::move(on_progress),
                                        std::move(callback));
                          });
}

}  // namespace

void add_drain(CLI::App& app, DrainOptions& options) {
  CLI::App& drain = *app.add_subcommand("drain", "moves a rank of a service to another process");
  drain
      .add_option("rank", options.rank,
                  "its number, as `status` counts them from 0, or the name of its stage")
      ->required();
  drain.add_option("name", options.service, "a service's name; the only one if not given");
}

Result<RankId> find_rank(const graph::Plan& plan, const std::string& name) {
  uint32_t number = 0;
  const char* const last = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data(), last, number);
  if (error == std::errc() && end == last) {
    if (number < static_cast<uint32_t>(num_ranks(plan))) return RankId(number);
    return make_error(ErrorCode::not_found, "there is no rank {}: they are 0 to {}", number,
                      num_ranks(plan) - 1);
  }
  std::vector<std::string_view> names;
  for (const graph::StagePlan& stage : plan.stages) {
    names.push_back(stage.name);
    if (stage.name != name) continue;
    if (num_replicas(plan, stage.index) == 1) return rank_at(plan, graph::LaneId(0), stage.index);
    return make_error(ErrorCode::invalid_argument,
                      "stage '{}' has {} ranks; say by its number which", name,
                      num_replicas(plan, stage.index));
  }
  return make_error(ErrorCode::not_found, "there is no stage '{}'{}", graph::shown(name),
                    graph::hint(name, names));
}

int run_drain(const DrainOptions& options) {
  const Status drained = drain(options);
  if (drained.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", drained.error().message.c_str());
  return exit_status(drained.error().code);
}

}  // namespace chainpump::cli
