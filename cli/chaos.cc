#include "cli/chaos.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "actors/os/signals.h"
#include "base/version.h"
#include "cli/chaos_run.h"
#include "cli/chaos_state.h"
#include "cli/client.h"
#include "cli/exit_status.h"
#include "cli/graph_commands.h"

namespace chainpump::cli {
namespace {

constexpr uint64_t kFaultsDefault = 30;
constexpr size_t kClients = 10;  // so that between two requests of one there are still eight
constexpr Duration kBetweenFaultsMin = std::chrono::milliseconds(50);  // most often far more
constexpr Duration kReadyMax = std::chrono::minutes(10);
constexpr Duration kReadyLook = std::chrono::milliseconds(200);
/// The demo has no bound on repairs but the highest that a graph file may say.
constexpr const char* kDemoFailover = "failover: {restarts: 1000, window: 1s}\n";

/// Requests that differ; the load goes through them again and again.
size_t pool_size(const ChaosOptions& options) {
  const uint64_t faults = options.num_faults.value_or(kFaultsDefault);
  return static_cast<size_t>(std::clamp<uint64_t>(2 * faults, 10, 64));
}

/// The demo's graph in a file of its own, which may be repaired at will; any other as it is.
Result<DeployOptions> deploy_in(const std::string& folder, const DeployFlags& flags) {
  DeployOptions options = deploy_options(flags);
  options.use_service = false;
  if (options.graph != "demo") return options;
  ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options.graph));
  ASSIGN_OR_RETURN(options.overrides.model_path,
                   find_model(options.graph, graph, options.overrides));
  ASSIGN_OR_RETURN(const std::string text, graph_text(options.graph));
  options.graph = folder + "/graph.yaml";
  std::ofstream file(options.graph);
  file << text << kDemoFailover;
  file.close();
  if (!file) return make_error(ErrorCode::no_room, "{}: cannot be written", options.graph);
  return options;
}

Status check_plan(const graph::Plan& plan, uint64_t num_faults, int32_t positions) {
  if (plan.failover_restarts == 0)
    return make_error(ErrorCode::invalid_argument,
                      "the graph's failover.restarts is 0: any rank's death ends its service, and "
                      "nothing is repaired (chainpump explain failover.restarts)");
  if (plan.context_tokens < positions)
    return make_error(ErrorCode::invalid_argument,
                      "the load has requests of {} tokens, and this deployment serves {} (give "
                      "--context, or --positions)",
                      positions, plan.context_tokens);
  // Faults come apart.
  const double most = 1 + to_seconds(plan.failover_window) / to_seconds(kBetweenFaultsMin);
  if (std::min(static_cast<double>(num_faults), most) > plan.failover_restarts)
    std::fprintf(stderr,
                 "[past %d ends of ranks within %.0f s, the graph's failover.restarts, the service "
                 "lets its requests fail and loads anew]\n",
                 plan.failover_restarts, to_seconds(plan.failover_window));
  return ok_status();
}

/// The plan's options, as `serve` has them.
std::vector<std::string> serve_arguments(const DeployOptions& deploy, const DeployFlags& flags) {
  std::vector<std::string> out = {deploy.graph, "--drain", "5"};
  const auto add = [&out](const char* flag, const auto& value) {
    if (value) out.insert(out.end(), {flag, fmt::format("{}", *value)});
  };
  const auto add_text = [&out](const char* flag, const std::string& value) {
    if (!value.empty()) out.insert(out.end(), {flag, value});
  };
  const graph::PlanOverrides& o = deploy.overrides;
  add("--model", o.model_path);
  add("--stages", o.stages);
  add("--threads", o.threads);
  add("--context", o.context_tokens);
  add("--prefill-chunk", o.prefill_chunk);
  add_text("--activations", flags.activations);
  add_text("--kv-type", flags.kv_type);
  add_text("--transport", flags.transport);
  add_text("--spin", flags.spin);
  return out;
}

/// Waits piece by piece, so that an interrupt ends it.
template <typename What>
Status await_ready(What& what, UnderWay& under_way) {
  const TimePoint deadline = steady_clock().now() + kReadyMax;
  while (true) {
    const Status ready = what.wait_ready(kReadyLook);
    if (ready.ok() || ready.error().code != ErrorCode::deadline_exceeded) return ready;
    if (const auto stopped = under_way.error()) return *stopped;
    if (steady_clock().now() > deadline) return ready;
  }
}

/// Without a fault, in this process: what users of an undisturbed service would get.
Result<std::vector<CalmRequest>> answer_alone(const ChaosOptions& options, DeployOptions deploy,
                                              UnderWay& under_way) {
  deploy.in_process = true;
  ASSIGN_OR_RETURN(const std::unique_ptr<gateway::Service> service, deploy_service(deploy));
  RETURN_IF_ERROR(await_ready(*service, under_way));
  std::vector<gateway::GenerateRequest> requests;
  for (size_t i = 0; i < pool_size(options); ++i)
    requests.push_back(
        chaos_request(options.seed, i, service->deployment().vocabulary_size, options.positions));
  return answer_calmly(*service, std::move(requests), under_way);
}

nlohmann::ordered_json name_of_run(const ChaosOptions& options, const std::string& graph_text) {
  return {{"seed", options.seed},
          {"faults", options.faults},
          {"requests", pool_size(options)},
          {"positions", options.positions},
          {"graph", graph_text},
          {"version", fmt::format("{}+{}", release(), commit())}};
}

Status chaos_in(ChaosService& service, const ChaosTask& task, const Prepared& prepared,
                const std::vector<CalmRequest>& pool, UnderWay& under_way, ChaosState& state) {
  ASSIGN_OR_RETURN(const std::unique_ptr<gateway::Service> client,
                   connect_to_service(service.socket(prepared.graph.name)));
  Status stored = ok_status();
  ChaosLoad load(pool, *client, under_way, static_cast<uint64_t>(state.report().num_requests));
  ASSIGN_OR_RETURN(const std::unique_ptr<ChaosRanks> ranks,
                   ChaosRanks::create(service.process_folder(prepared.graph.name)));
  ChaosRun run(task, prepared.plan, service, *ranks, load, under_way, [&](const ChaosReport& part) {
    if (Status added = state.add(part); !added.ok() && stored.ok()) {
      stored = added;
      under_way.stop(added.error());
    }
  });
  RETURN_IF_ERROR(load.start(kClients));
  const Status done = run.run();
  RETURN_IF_ERROR(stored);
  return done;
}

Status chaos(const ChaosOptions& options, UnderWay& under_way, ChaosState& state) {
  ChaosTask task;
  task.seed = options.seed;
  ASSIGN_OR_RETURN(task.kinds, parse_faults(options.faults));
  if (options.duration_s)
    task.duration =
        std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*options.duration_s));
  if (options.num_faults || !options.duration_s)
    task.end_fault = options.num_faults.value_or(kFaultsDefault);
  ASSIGN_OR_RETURN(const PrivateFolder folder, PrivateFolder::create());
  ASSIGN_OR_RETURN(const DeployOptions deploy, deploy_in(folder.path(), options.deploy));
  if (!options.state_path.empty()) {
    ASSIGN_OR_RETURN(const std::string text, graph_text(deploy.graph));
    ASSIGN_OR_RETURN(state, ChaosState::open(options.state_path, name_of_run(options, text)));
  }
  task.first_fault = state.report().faults.size();
  if (task.first_fault >= task.end_fault) return ok_status();
  ASSIGN_OR_RETURN(const Prepared prepared, prepare(deploy));
  RETURN_IF_ERROR(check_plan(prepared.plan, task.end_fault, options.positions));
  ASSIGN_OR_RETURN(const std::vector<CalmRequest> pool, answer_alone(options, deploy, under_way));

  ASSIGN_OR_RETURN(ChaosService service,
                   ChaosService::start(folder.path(), serve_arguments(deploy, options.deploy)));
  Status done = await_ready(service, under_way);
  if (done.ok()) done = chaos_in(service, task, prepared, pool, under_way, state);
  if (!done.ok() || !state.report().is_good()) std::fputs(service.complaints().c_str(), stderr);
  return done;
}

Status print(const ChaosOptions& options, const ChaosReport& report) {
  const std::string text = options.json ? chaos_json(report).dump() + "\n" : chaos_table(report);
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) == 0) return ok_status();
  return make_error(ErrorCode::internal, "standard output cannot be written");
}

}  // namespace

int run_chaos(const ChaosOptions& options) {
  ::signal(SIGPIPE, SIG_IGN);
  UnderWay under_way;
  ChaosState state;
  std::atomic<int> signal_seen{0};
  const auto listening = os::TerminationSignals::create([&](int signal) {
    signal_seen = signal;
    under_way.stop(make_error(ErrorCode::cancelled, "interrupted"));
  });
  Status done = listening.ok() ? chaos(options, under_way, state) : Status(listening.error());
  // What was wrong before anything began has no report.
  const bool has_begun = done.ok() || signal_seen != 0 || state.report().num_requests > 0;
  if (has_begun)
    if (const Status printed = print(options, state.report()); !printed.ok() && done.ok())
      done = printed;
  if (signal_seen != 0) return 128 + signal_seen;
  if (done.ok()) return state.report().is_good() ? 0 : 5;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
