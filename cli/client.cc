#include "cli/client.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/atomic_file.h"
#include "base/version.h"
#include "cli/graph_commands.h"
#include "gateway/resuming_service.h"
#include "gateway/rpc/client.h"
#include "gateway/service_folder.h"

namespace chainpump::cli {
namespace {

constexpr Duration kConnectMax = std::chrono::seconds(5);
constexpr Duration kAwayMax = std::chrono::seconds(15);  // of a gateway that is started anew

/// What a service must be to serve these options, as far as they say.
Result<gateway::DeploymentInfo> asked_for(const DeployOptions& options) {
  gateway::DeploymentInfo info;
  ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options.graph));
  ASSIGN_OR_RETURN(info.graph_text, graph_text(options.graph));
  ASSIGN_OR_RETURN(info.plan.model_path, find_model(options.graph, graph, options.overrides));
  info.graph_name = graph.name;
  info.build = fmt::format("{}+{}", release(), commit());
  const char* isa = std::getenv("CHAINPUMP_ISA");
  info.isa = isa ? isa : "";
  return info;
}

template <typename T, typename U>
std::optional<std::string> differs(const char* what, const T& theirs,
                                   const std::optional<U>& ours) {
  if (!ours || theirs == static_cast<T>(*ours)) return std::nullopt;
  return fmt::format("its {} is another", what);
}

}  // namespace

std::optional<std::string> conflict(const gateway::DeploymentInfo& service,
                                    const gateway::DeploymentInfo& asked,
                                    const graph::PlanOverrides& o) {
  if (service.build != asked.build)
    return fmt::format("it is chainpump {}, and this is {}", service.build, asked.build);
  if (service.graph_text != asked.graph_text) return "its graph file reads otherwise";
  if (!is_same_file(service.plan.model_path, asked.plan.model_path))
    return fmt::format("its model is {}", service.plan.model_path);
  if (service.isa != asked.isa) return "its CHAINPUMP_ISA is another";
  const graph::Plan& plan = service.plan;
  for (const graph::StagePlan& stage : plan.stages)
    if (auto found = differs("--threads", stage.num_threads, o.threads)) return found;
  for (const graph::EdgePlan& edge : plan.edges) {
    if (auto found = differs("--transport", edge.transport, o.transport)) return found;
    if (auto found = differs("--spin", edge.spin, o.spin)) return found;
  }
  for (auto found : {differs("--stages", plan.stages.size(), o.stages),
                     differs("--context", plan.context_tokens, o.context_tokens),
                     differs("--prefill-chunk", plan.prefill_chunk_tokens, o.prefill_chunk),
                     differs("--activations", plan.exact_activations, o.exact_activations),
                     differs("--kv-type", plan.kv.type, o.kv_type)})
    if (found) return found;
  return std::nullopt;
}

Result<std::unique_ptr<gateway::Service>> connect_to_service(const std::string& socket) {
  using Found = Result<std::shared_ptr<gateway::Service>>;
  const auto connect = [socket](Duration patience) -> Found {
    ASSIGN_OR_RETURN(auto client, gateway::rpc::Client::connect(socket, patience));
    return Found(std::move(client));
  };
  ASSIGN_OR_RETURN(std::shared_ptr<gateway::Service> first, connect(kConnectMax));
  return std::unique_ptr<gateway::Service>(std::make_unique<gateway::ResumingService>(
      std::move(first), connect, kAwayMax, steady_clock()));
}

Result<OpenService> open_named_service(const DeployOptions& options) {
  const auto own = [&]() -> Result<OpenService> {
    ASSIGN_OR_RETURN(std::unique_ptr<gateway::Service> service, deploy_service(options));
    return OpenService{.service = std::move(service), .socket = {}};
  };
  if (!options.use_service || options.in_process) return own();
  ASSIGN_OR_RETURN(const gateway::DeploymentInfo asked, asked_for(options));
  std::string socket = gateway::service_socket(asked.graph_name).string();
  const auto not_used = [&](const std::string& why) {
    std::fprintf(stderr, "[not using the service '%s': %s]\n", asked.graph_name.c_str(),
                 why.c_str());
    return own();
  };
  Result<std::unique_ptr<gateway::Service>> client = connect_to_service(socket);
  // Most often there is no service, which is nothing to speak of.
  if (!client.ok())
    return client.error().code == ErrorCode::not_found ? own() : not_used(client.error().message);
  if (const auto found = conflict((*client)->deployment(), asked, options.overrides))
    return not_used(*found);
  std::fprintf(stderr, "[using the service '%s']\n", asked.graph_name.c_str());
  return OpenService{.service = std::move(*client), .socket = std::move(socket)};
}

Result<std::unique_ptr<gateway::Service>> open_service(const DeployOptions& options) {
  ASSIGN_OR_RETURN(OpenService opened, open_named_service(options));
  return std::move(opened.service);
}

}  // namespace chainpump::cli
