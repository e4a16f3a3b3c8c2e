#include "cli/plan_nodes.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "actors/service_folder.h"
#include "cli/machine.h"
#include "gateway/service_folder.h"
#include "transport/rpc/service_file.h"
#include "transport/rpc/unix_socket.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;

/// Those of a service that runs; none if there is none, or it is of one machine.
Result<std::vector<graph::Node>> joined_nodes(const std::string& graph_name) {
  std::vector<graph::Node> nodes;
  if (!rpc::connect_unix(gateway::service_socket(graph_name)).ok()) return nodes;
  const std::string folder = gateway::service_folder(graph_name).string();
  ASSIGN_OR_RETURN(const rpc::ServiceSpec service,
                   rpc::read_service_file(actors::plan_file(folder)));
  if (service.certificates.empty()) return nodes;
  ASSIGN_OR_RETURN(const std::vector<rpc::NodeInfo> joined,
                   rpc::read_nodes_file(actors::nodes_file(folder)));
  if (!service.node.empty()) nodes.push_back({.name = service.node, .machine = machine_profile()});
  for (const rpc::NodeInfo& info : joined) nodes.push_back(node_of(info));
  return nodes;
}

}  // namespace

graph::Node node_of(const rpc::NodeInfo& info) {
  return {.name = info.name,
          .labels = info.labels,
          .machine = {.cores = {info.cores.begin(), info.cores.end()},
                      .memory_bytes = info.memory_bytes,
                      .read_bytes_per_s = info.read_bytes_per_s,
                      .int8_ops_per_s = info.int8_ops_per_s,
                      .f32_ops_per_s = info.f32_ops_per_s,
                      .bf16_ops_per_s = info.bf16_ops_per_s}};
}

Result<PlanNodes> find_plan_nodes(const graph::Graph& graph) {
  ASSIGN_OR_RETURN(std::vector<graph::Node> joined, joined_nodes(graph.name));
  if (!joined.empty())
    return PlanNodes{std::move(joined),
                     fmt::format("over the nodes of the service '{}'", graph.name)};
  PlanNodes made;
  std::vector<std::string> names;
  for (const graph::Stage& stage : graph.stages)
    for (const std::string& name : stage.nodes)
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  if (names.empty()) return PlanNodes{{{.name = "", .machine = machine_profile()}}};
  for (const std::string& name : names)
    made.nodes.push_back({.name = name, .machine = machine_profile()});
  made.note = fmt::format("no service '{}' runs here: {} {} taken to be {} like this one",
                          graph.name, fmt::join(names, ", "), names.size() == 1 ? "is" : "are",
                          names.size() == 1 ? "a machine" : "machines");
  return made;
}

}  // namespace chainpump::cli
