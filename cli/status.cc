#include "cli/status.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "cli/exit_status.h"
#include "cli/run_report.h"
#include "cli/top_view.h"
#include "cli/yaml_output.h"
#include "gateway/rpc/client.h"
#include "gateway/service_folder.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kAnswerMax = std::chrono::seconds(5);

struct Found {
  std::string name;
  std::string socket;
  Result<gateway::StatusReport> status;
  gateway::DeploymentInfo deployment;
};

constexpr const char* state_name(graph::LaneHealth::State state) {
  switch (state) {
    case graph::LaneHealth::State::starting:
      return "starting";
    case graph::LaneHealth::State::serving:
      return "serving";
    case graph::LaneHealth::State::away:
      return "away";
  }
  return "unknown";
}

/// None if nobody listens there.
std::optional<Found> ask(const std::string& name) {
  Found found{.name = name,
              .socket = gateway::service_socket(name).string(),
              .status = Error{},
              .deployment = {}};
  const auto client = gateway::rpc::Client::connect(found.socket, kAnswerMax);
  if (!client.ok()) {
    if (client.error().code == ErrorCode::not_found) return std::nullopt;
    found.status = client.error();
    return found;
  }
  found.deployment = (*client)->deployment();
  found.status = (*client)->status(kAnswerMax);
  return found;
}

/// Of services that run or have left a folder behind, in order.
std::vector<std::string> folder_names() {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry :
       std::filesystem::directory_iterator(gateway::service_folder("x").parent_path(), ignored))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<Found> find_services(const std::string& name) {
  std::vector<Found> services;
  for (const std::string& each : name.empty() ? folder_names() : std::vector{name})
    if (auto found = ask(each)) services.push_back(std::move(*found));
  return services;
}

Json health_json(const gateway::Readiness& readiness) {
  Json lanes = Json::array();
  const auto seconds = [](const std::optional<Duration>& span) {
    return span ? Json(to_seconds(*span)) : Json();
  };
  for (const graph::LaneHealth& lane : readiness.lanes)
    lanes.push_back({{"lane", lane.lane.value},
                     {"state", state_name(lane.state)},
                     {"ready", lane.ready},
                     {"why", lane.why},
                     {"away_s", seconds(lane.away_for)},
                     {"crossed_ago_s", seconds(lane.crossed_ago)},
                     {"slow", lane.slow}});
  return lanes;
}

bool is_ready(const Found& found) { return found.status.ok() && found.status->readiness.ready; }

Json to_json(const Found& found) {
  if (!found.status.ok())
    return {{"name", found.name},
            {"socket", found.socket},
            {"phase", "unknown"},
            {"message", found.status.error().message},
            {"ready", false},
            {"not_ready_because", "it does not answer: " + found.status.error().message}};
  const gateway::StatusReport& s = *found.status;
  const graph::Plan& plan = found.deployment.plan;
  Json queues = Json::array();
  for (const actors::LaneReport& lane : s.stages.lanes)
    queues.push_back({{"lane", lane.lane.value},
                      {"running", lane.num_running},
                      {"waiting", lane.num_waiting},
                      {"kv_blocks", lane.num_kv_blocks},
                      {"kv_blocks_free", lane.num_free_kv_blocks}});
  return {{"name", found.name},
          {"socket", found.socket},
          {"phase", gateway::to_string(s.phase)},
          {"message", s.message},
          {"ready", s.readiness.ready},
          {"not_ready_because", s.readiness.why},
          {"health", health_json(s.readiness)},
          {"coordinator_away", s.readiness.coordinator_away},
          {"pid", s.pid},
          {"uptime_s", to_seconds(s.uptime)},
          {"model", plan.model_path},
          {"context_tokens", plan.context_tokens},
          {"requests", s.num_requests},
          {"sequences", s.num_sequences},
          {"lanes", num_lanes(plan)},
          {"max_sequences", plan.max_sequences * num_lanes(plan)},
          {"completed", s.num_completed},
          {"failed", s.num_failed},
          {"cancelled", s.num_cancelled},
          {"refused", s.num_refused},
          {"tokens", s.num_tokens},
          {"tokens_per_second", s.tokens_per_second},
          {"kv",
           {{"blocks", plan.kv.num_blocks * num_lanes(plan)},
            {"block_tokens", plan.kv.block_tokens},
            {"tokens_held", s.num_tokens_held}}},
          {"version", found.deployment.build},
          {"system_fingerprint", s.stages.numerics_id},
          {"queues", queues},
          {"stages_missing", s.stages_missing},
          {"stages", stages_json(s.stages)},
          {"links", links_json(s.stages)}};
}

/// "yes", or "no" and why, and where each lane stands.
std::string health_lines(const gateway::Readiness& readiness) {
  std::string lines =
      readiness.ready ? "ready: yes\n" : fmt::format("ready: no ({})\n", readiness.why);
  for (const graph::LaneHealth& lane : readiness.lanes) {
    lines += fmt::format("lane {}: {}", lane.lane, state_name(lane.state));
    if (lane.away_for) lines += fmt::format(" for {:.1f} s", to_seconds(*lane.away_for));
    if (lane.crossed_ago)
      lines += fmt::format(", a token crossed it {:.1f} s ago", to_seconds(*lane.crossed_ago));
    lines += lane.why.empty() ? "\n" : fmt::format("; {}\n", lane.why);
    if (!lane.slow.empty()) lines += fmt::format("lane {}: slow: {}\n", lane.lane, lane.slow);
  }
  if (!readiness.coordinator_away.empty())
    lines += fmt::format("no coordinator: {}\n", readiness.coordinator_away);
  return lines;
}

std::string to_table(const Found& found) {
  if (!found.status.ok())
    return fmt::format("{}: does not answer: {}\nready: no\n", found.name,
                       found.status.error().message);
  const gateway::StatusReport& s = *found.status;
  const graph::Plan& plan = found.deployment.plan;
  const actors::LaneReport all = sum_of(s.stages.lanes);
  return fmt::format(
             "{}: {} ({}), process {}, up {:.0f} s\n"
             "{}"
             "{} on {}\n"
             "requests: {} live; {} sequences run, {} wait ({} run at once); {} completed, {} "
             "failed, {} cancelled, {} refused\n"
             "tokens: {} generated, {:.1f} per second of late; {} of {} KV blocks in use\n",
             found.name, gateway::to_string(s.phase), s.message, s.pid, to_seconds(s.uptime),
             health_lines(s.readiness), plan.model_path, found.socket, s.num_requests,
             all.num_running, all.num_waiting, plan.max_sequences * num_lanes(plan),
             s.num_completed, s.num_failed, s.num_cancelled, s.num_refused, s.num_tokens,
             s.tokens_per_second, all.num_kv_blocks - all.num_free_kv_blocks, all.num_kv_blocks) +
         (s.stages_missing.empty() ? ""
                                   : fmt::format("no word of the stages: {}\n", s.stages_missing)) +
         (s.stages.stages.empty() ? "" : "\n" + stages_table(s.stages));
}

}  // namespace

Result<std::unique_ptr<gateway::Service>> find_service(const std::string& name) {
  std::vector<std::string> names;
  std::unique_ptr<gateway::Service> found;
  for (const std::string& each : name.empty() ? folder_names() : std::vector{name}) {
    auto client = gateway::rpc::Client::connect(gateway::service_socket(each).string(), kAnswerMax);
    if (client.ok()) {
      names.push_back(each);
      found = std::move(*client);
    } else if (!name.empty() && client.error().code != ErrorCode::not_found) {
      return client.error();
    }
  }
  if (names.size() > 1)
    return make_error(ErrorCode::invalid_argument, "several services run: {}; name one",
                      fmt::join(names, ", "));
  if (!found)
    return make_error(
        ErrorCode::not_found, "{}; `chainpump serve GRAPH` starts one",
        name.empty() ? "no service runs" : fmt::format("no service named '{}' runs", name));
  return found;
}

int run_status(const StatusOptions& options) {
  const std::vector<Found> services = find_services(options.name);
  if (services.empty() && !options.name.empty()) {
    std::fprintf(stderr, "chainpump: no service named '%s' runs\n", options.name.c_str());
    return exit_status(ErrorCode::not_found);
  }
  std::string text;
  if (options.output == "table") {
    for (const Found& found : services) text += (text.empty() ? "" : "\n") + to_table(found);
    if (services.empty()) text = "no service runs; `chainpump serve demo` starts one\n";
  } else {
    Json json = {{"services", Json::array()}};
    for (const Found& found : services) json["services"].push_back(to_json(found));
    text = options.output == "yaml"
               ? to_yaml(json)
               : json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  const bool all_ready = std::all_of(services.begin(), services.end(), is_ready);
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0)
    return all_ready ? 0 : exit_status(ErrorCode::overloaded);
  std::fprintf(stderr, "chainpump: standard output cannot be written\n");
  return 5;
}

}  // namespace chainpump::cli
