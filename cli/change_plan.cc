#include "cli/change_plan.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "actors/convert.h"
#include "actors/os/memory.h"
#include "actors/service.h"
#include "base/atomic_file.h"
#include "cli/graph_commands.h"
#include "cli/machine.h"
#include "gateway/service_folder.h"
#include "graph/graph_change.h"
#include "graph/plan_change.h"
#include "models/llama/profile.h"

namespace chainpump::cli {
namespace {

/// What it runs by.
Result<WantedChange> in_force(const std::string& service) {
  WantedChange change{.service = service, .folder = gateway::service_folder(service).string()};
  Result<transport::rpc::ServiceSpec> spec = actors::Service::spec_of(change.folder);
  if (!spec.ok() && spec.error().code == ErrorCode::not_found)
    return make_error(ErrorCode::not_found, "there is no service '{}'", service);
  if (!spec.ok()) return spec.error();
  change.spec = *std::move(spec);
  if (!change.spec.certificates.empty())
    return make_error(ErrorCode::unimplemented,
                      "a deployment over the nodes of a cluster cannot be changed yet while it "
                      "runs: end it, and start it with the new graph file");
  ASSIGN_OR_RETURN(change.plan_now, actors::from_wire(change.spec.plan));
  ASSIGN_OR_RETURN(change.graph_now, graph::parse_graph_text(change.spec.graph, "its graph"));
  return change;
}

/// To the wanted graph, whose flags are counted in.
Status plan_for(WantedChange& change) {
  change.may = may_change(change.graph_now, change.graph_next);
  ASSIGN_OR_RETURN(const models::GgufFile model,
                   models::GgufFile::open(change.graph_next.model_path));
  ASSIGN_OR_RETURN(const graph::ModelProfile profile, models::read_profile(model));
  graph::MachineProfile machine = machine_profile();
  change.available_bytes = machine.memory_bytes;
  machine.memory_bytes += bytes_of(change.plan_now);  // which will be free in the end
  const graph::Graph graph = with_choices_of(change.plan_now, change.graph_now, change.graph_next);
  ASSIGN_OR_RETURN(change.plan_next, make_plan(graph, profile, machine, {}));
  if (change.may.ok()) change.may = may_change(change.plan_now, change.plan_next);
  if (ranks_differ(change.plan_now, change.plan_next))
    change.needed_bytes = bytes_of(change.plan_next);
  if (change.may.ok() && change.needed_bytes > change.available_bytes)
    change.may = make_error(
        ErrorCode::no_room,
        "the new ranks have to be there beside the old ones for a while, which takes {} bytes "
        "more; {} are free",
        change.needed_bytes, change.available_bytes);
  change.spec.plan = actors::to_wire(change.plan_next);
  change.spec.spin_between_ops =
      cores_suffice(change.plan_next, {{.name = "", .machine = machine}});
  change.spec.graph = to_yaml(change.graph_next);
  return ok_status();
}

}  // namespace

Result<WantedChange> wanted_by(const DeployOptions& options) {
  ASSIGN_OR_RETURN(graph::Graph graph, find_graph(options.graph));
  ASSIGN_OR_RETURN(WantedChange change, in_force(graph.name));
  graph::PlanOverrides overrides = options.overrides;
  // The model that the service was started with, where nothing says another.
  const bool says_model = overrides.model_path || !graph.model_path.empty();
  if (!says_model) overrides.model_path = change.graph_now.model_path;
  ASSIGN_OR_RETURN(change.graph_next, with_overrides(std::move(graph), overrides));
  // The same file by another name is no other model.
  std::string& model = change.graph_next.model_path;
  std::error_code ignored;
  model = is_same_file(model, change.graph_now.model_path)
              ? change.graph_now.model_path
              : std::filesystem::absolute(model, ignored).string();
  ASSIGN_OR_RETURN(change.spec.graph_text, graph_text(options.graph));
  RETURN_IF_ERROR(plan_for(change));
  return change;
}

Result<WantedChange> scaled(const std::string& service, const std::string& stage_and_count) {
  const size_t equals = stage_and_count.rfind('=');
  const std::string name = stage_and_count.substr(0, equals);
  int32_t count = 0;
  const char* const last = stage_and_count.data() + stage_and_count.size();
  const bool has_count = equals != std::string::npos && equals + 1 < stage_and_count.size();
  if (has_count) {
    const auto [end, error] = std::from_chars(stage_and_count.data() + equals + 1, last, count);
    if (error != std::errc() || end != last) count = 0;
  }
  if (name.empty() || count < 1 || count > 64)
    return make_error(ErrorCode::invalid_argument,
                      "'{}' must be STAGE=N, the name of a stage and 1 to 64 replicas of it",
                      graph::shown(stage_and_count));
  ASSIGN_OR_RETURN(WantedChange change, in_force(service));
  change.graph_next = change.graph_now;
  std::vector<std::string_view> names;
  for (const graph::Stage& stage : change.graph_now.stages) names.push_back(stage.name);
  const auto found = std::find_if(change.graph_next.stages.begin(), change.graph_next.stages.end(),
                                  [&](const graph::Stage& stage) { return stage.name == name; });
  if (found == change.graph_next.stages.end())
    return make_error(ErrorCode::not_found, "there is no stage '{}'{}", graph::shown(name),
                      graph::hint(name, names));
  found->replicas = count;
  RETURN_IF_ERROR(plan_for(change));
  return change;
}

}  // namespace chainpump::cli
