// From a graph's name to a running deployment: graph file, model file, plan, ranks, tokenizer.
// What the verbs that need one share. One thread, the command's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/runtime.h"
#include "base/result.h"
#include "cli/progress.h"
#include "gateway/local_service.h"
#include "graph/planner.h"
#include "models/gguf/gguf.h"
#include "transport/rpc/control_types.h"

namespace chainpump::cli {

struct DeployOptions {
  std::string graph = "demo";  // a file, or "demo"
  graph::PlanOverrides overrides;
  bool in_process = false;
  bool use_service = true;  // one that runs, if it is the same
};

/// What a graph asks for on this machine, before anything of it runs.
struct Prepared {
  graph::Graph graph;
  std::string in_force = {};  // the graph as text, with what overrides it (graph/graph_text.h)
  models::GgufFile model;
  graph::Plan plan;
  actors::RuntimeOptions runtime;
};
Result<Prepared> prepare(const DeployOptions& options);
/// The same over the nodes of a cluster.
Result<Prepared> prepare(const DeployOptions& options, const std::vector<graph::Node>& nodes);

/// As others have planned it (ServiceSpec of schemas/control.capnp).
Result<Prepared> prepare(const DeployOptions& options, const transport::rpc::ServiceSpec& planned);
/// The same of one that was prepared otherwise.
Status adopt(const transport::rpc::ServiceSpec& planned, Prepared& prepared);

/// Ranks come up in their own time while the caller goes on; runtime->wait_ready() tells.
struct Deployment {
  gateway::DeploymentInfo info;
  gateway::PromptEncoder encoder;
  std::unique_ptr<actors::Runtime> runtime;
  std::shared_ptr<const LoadProgress> progress = {};  // of attach()
};

/// Compute threads may spin only if each has a core of its own, on every node.
bool cores_suffice(const graph::Plan& plan, const std::vector<graph::Node>& nodes);

/// The graph file's text; of "demo" the built-in one.
Result<std::string> graph_text(const std::string& graph_name);

/// The model file that the graph or the overrides name; for "demo" the one that `make demo`
/// installs.
Result<std::string> find_model(const std::string& graph_name, const graph::Graph& graph,
                               const graph::PlanOverrides& overrides);

Result<Deployment> deploy(const DeployOptions& options);

/// The deployment of the service in `folder` (actors/service.h), prepared from the same options.
Result<Deployment> attach(const DeployOptions& options, const std::string& folder);

/// The same as a service of this process.
Result<std::unique_ptr<gateway::Service>> deploy_service(const DeployOptions& options);

/// Waits until every stage is ready, with progress on a terminal. Errors name the stage.
Status wait_ready(gateway::Service& service);

}  // namespace chainpump::cli
