#include "cli/graph_commands.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/exit_status.h"
#include "cli/yaml_output.h"
#include "graph/demo_graph.h"
#include "graph/keys.h"

namespace chainpump::cli {
namespace {

// Keys keep the order in which they are set.
using Json = nlohmann::ordered_json;

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return exit_status(error.code);
}

int print(const std::string& text) {
  const bool good = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  if (good) return 0;
  std::fprintf(stderr, "chainpump: standard output cannot be written\n");
  return 5;
}

std::string to_text(const Json& json, bool yaml) {
  if (yaml) return to_yaml(json);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string_view to_string(graph::TransportKind kind) {
  constexpr std::string_view kNames[] = {"auto", "tcp", "shared_memory", "loopback"};
  return kNames[static_cast<size_t>(kind)];
}
std::string_view to_string(graph::SpinPolicy policy) {
  constexpr std::string_view kNames[] = {"auto", "always", "never"};
  return kNames[static_cast<size_t>(policy)];
}
std::string_view to_string(graph::ChecksumPolicy policy) {
  constexpr std::string_view kNames[] = {"auto", "on", "off"};
  return kNames[static_cast<size_t>(policy)];
}

/// Cores are those of the first replica; those that each lane runs on stand under `lanes`.
Json to_json(const graph::StagePlan& stage) {
  return {{"name", stage.name},
          {"layers", {stage.layer_begin, stage.layer_end}},
          {"device", stage.devices.front().kind},
          {"cores", stage.devices.front().cores},
          {"replicas", stage.devices.size()},
          {"standbys", stage.standbys},
          {"threads", stage.num_threads},
          {"weight_bytes", stage.weight_bytes},
          {"kv_bytes", stage.kv_bytes},
          {"slot_bytes", stage.slot_bytes},
          {"predicted_decode_ms", stage.predicted_decode_s * 1e3},
          {"predicted_prefill_ms", stage.predicted_prefill_s * 1e3}};
}

std::vector<std::string> homes_of(const graph::StagePlan& stage) {
  std::vector<std::string> homes;
  for (const graph::DevicePlan& device : stage.devices) homes.push_back(device.node);
  return homes;
}

void add_nodes(Json& json, const graph::PlanReport& report, const std::string& note) {
  json["over"] = note;
  json["tightest_node"] = report.verdict.node;
  json["nodes"] = Json::array();
  for (const graph::NodePlan& node : report.plan.nodes)
    json["nodes"].push_back({{"name", node.name}, {"cores", node.num_cores}});
  for (size_t i = 0; i < report.plan.stages.size(); ++i)
    json["stages"][i]["nodes"] = homes_of(report.plan.stages[i]);
}

const std::string& stage_name(const graph::Plan& plan, StageIndex index) {
  return plan.stages[static_cast<size_t>(index.value)].name;
}

int64_t slot_bytes(const graph::EdgePlan& edge) {
  return edge.slot_payload_bytes + edge.slot_metadata_bytes;
}

Json plan_tree(const std::string& name, const graph::PlanReport& report, const std::string& note) {
  const graph::Verdict& verdict = report.verdict;
  const graph::Plan& plan = report.plan;
  Json json = {{"graph", name},
               {"fits", verdict.fits},
               {"needed_bytes", verdict.needed_bytes},
               {"available_bytes", verdict.available_bytes},
               {"context_tokens", plan.context_tokens},
               {"largest_context_tokens", verdict.largest_context_tokens},
               {"kv",
                {{"type", info(plan.kv.type).name},
                 {"block_tokens", plan.kv.block_tokens},
                 {"num_blocks", plan.kv.num_blocks}}},
               {"failover",
                {{"restarts", plan.failover_restarts},
                 {"window_s", std::chrono::duration<double>(plan.failover_window).count()},
                 {"slow", plan.failover_evicts_slow ? "evict" : "flag"},
                 {"replay_log_bytes", plan.replay_log_bytes}}},
               {"lanes", Json::array()},
               {"stages", Json::array()},
               {"edges", Json::array()}};
  for (int32_t lane = 0; lane < num_lanes(plan); ++lane) {
    Json cores = Json::array();
    Json ranks = Json::array();
    for (const graph::StagePlan& stage : plan.stages) {
      const RankId rank = rank_at(plan, graph::LaneId(static_cast<uint8_t>(lane)), stage.index);
      ranks.push_back(rank.value);
      cores.push_back(stage.devices[static_cast<size_t>(place_of(plan, rank).replica)].cores);
    }
    json["lanes"].push_back({{"lane", lane}, {"ranks", ranks}, {"cores", cores}});
  }
  for (const graph::StagePlan& stage : plan.stages) json["stages"].push_back(to_json(stage));
  if (!verdict.node.empty()) add_nodes(json, report, note);
  for (const graph::EdgePlan& edge : plan.edges)
    json["edges"].push_back({{"from", stage_name(plan, edge.from)},
                             {"to", stage_name(plan, edge.to)},
                             {"is_return", edge.is_return},
                             {"transport", to_string(edge.transport)},
                             {"spin", to_string(edge.spin)},
                             {"checksum", to_string(edge.checksum)},
                             {"credits", edge.credits},
                             {"slot_bytes", slot_bytes(edge)}});
  return json;
}

/// "0,1": of several replicas "0,1|2,3".
std::string cores_text(const std::vector<graph::DevicePlan>& devices) {
  std::vector<std::string> of_each;
  for (const graph::DevicePlan& device : devices)
    of_each.push_back(fmt::format("{}", fmt::join(device.cores, ",")));
  return devices.front().cores.empty() ? "shared" : fmt::format("{}", fmt::join(of_each, "|"));
}

double megabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

std::string failover_text(const graph::Plan& plan) {
  std::vector<std::string> standbys;
  for (const graph::StagePlan& s : plan.stages)
    if (s.standbys > 0) standbys.push_back(fmt::format("{} of {}", s.standbys, s.name));
  std::string out;
  if (!standbys.empty())
    out += fmt::format("\nstandbys, each with weights and KV of its own: {}\n",
                       fmt::join(standbys, ", "));
  if (plan.replay_log_bytes > 0)
    out += fmt::format("{}replay log of each rank: up to {:.1f} MB\n", out.empty() ? "\n" : "",
                       megabytes(plan.replay_log_bytes));
  return out;
}

/// Where the ranks have their homes; and where else they, and their standbys, may be.
std::string nodes_text(const graph::Plan& plan, const std::string& note) {
  if (plan.nodes.empty() || plan.nodes.front().name.empty()) return {};
  std::string out = fmt::format("\n{}:\n", note);
  for (const graph::StagePlan& s : plan.stages) {
    std::vector<std::string> others;
    const std::vector<std::string> homes = homes_of(s);
    for (const std::string& node : s.nodes)
      if (std::find(homes.begin(), homes.end(), node) == homes.end()) others.push_back(node);
    out += fmt::format("  {:<12} on {}{}\n", s.name, fmt::join(homes, ", "),
                       others.empty() ? "" : fmt::format("; else {}", fmt::join(others, ", ")));
  }
  return out;
}

std::string plan_table(const graph::PlanReport& report, const std::string& note) {
  const graph::Plan& plan = report.plan;
  std::string out =
      fmt::format("{:<12} {:>9} {:<10} {:>7} {:>11} {:>9} {:>9} {:>10} {:>10}\n", "stage", "layers",
                  "cores", "threads", "weights MB", "KV MB", "slots MB", "decode ms", "prefill ms");
  for (const graph::StagePlan& s : plan.stages)
    out += fmt::format(
        "{:<12} {:>9} {:<10} {:>7} {:>11.1f} {:>9.1f} {:>9.1f} {:>10.3f} {:>10.2f}\n", s.name,
        fmt::format("{}-{}", s.layer_begin, s.layer_end - 1), cores_text(s.devices), s.num_threads,
        megabytes(s.weight_bytes), megabytes(s.kv_bytes), megabytes(s.slot_bytes),
        s.predicted_decode_s * 1e3, s.predicted_prefill_s * 1e3);
  out += fmt::format("\n{:<25} {:<13} {:>7} {:>11}\n", "edge", "transport", "credits", "slot KB");
  for (const graph::EdgePlan& edge : plan.edges)
    out += fmt::format(
        "{:<25} {:<13} {:>7} {:>11.1f}\n",
        fmt::format("{} -> {}", stage_name(plan, edge.from), stage_name(plan, edge.to)),
        to_string(edge.transport), edge.credits, static_cast<double>(slot_bytes(edge)) / 1e3);
  if (num_lanes(plan) > 1) {
    out += fmt::format("\n{} lanes, each with links and {} KV blocks of its own on every stage:\n",
                       num_lanes(plan), plan.kv.num_blocks);
    for (const graph::StagePlan& s : plan.stages) {
      std::vector<std::string> of_each;
      for (uint32_t rank = 0; rank < static_cast<uint32_t>(num_ranks(plan)); ++rank)
        if (place_of(plan, RankId(rank)).stage == s.index)
          of_each.push_back(lanes_text(lanes_of(plan, RankId(rank))));
      out += fmt::format("  {:<12} {} rank{}: {}\n", s.name, of_each.size(),
                         of_each.size() == 1 ? "" : "s", fmt::join(of_each, "; "));
    }
  }
  out += nodes_text(plan, note);
  out += failover_text(plan);
  const graph::Verdict& verdict = report.verdict;
  return out + fmt::format("\n{}: {:.1f} of {:.1f} MB{}; context {} tokens, {}\n",
                           verdict.fits ? "fits" : "does not fit", megabytes(verdict.needed_bytes),
                           megabytes(verdict.available_bytes),
                           verdict.node.empty() ? "" : " on " + verdict.node, plan.context_tokens,
                           verdict.largest_context_tokens > 0
                               ? fmt::format("largest that fits {}", verdict.largest_context_tokens)
                               : "and no other fits");
}

Result<graph::Graph> find_graph(const std::string& name, graph::Diagnostics& out) {
  if (name != "demo") return graph::load_graph(name, out);
  return graph::parse_graph_text(graph::kDemoGraph, name);
}

Json errors_tree(const std::string& name, const Error& error, const graph::Diagnostics& found) {
  Json errors = Json::array();
  for (const graph::Diagnostic& item : found.items())
    errors.push_back({{"file", name},
                      {"line", item.at.line},
                      {"column", item.at.column},
                      {"message", item.message}});
  if (found.empty())
    errors.push_back(
        {{"file", name}, {"line", nullptr}, {"column", nullptr}, {"message", error.message}});
  return {{"valid", false}, {"errors", errors}, {"more_errors", found.num_more()}};
}

}  // namespace

Result<graph::Graph> find_graph(const std::string& name) {
  graph::Diagnostics found;
  return find_graph(name, found);
}

int run_validate(const GraphCommandOptions& options) {
  graph::Diagnostics errors;
  const auto found = find_graph(options.graph, errors);
  if (!options.json && !options.yaml) {
    if (!found.ok()) return fail(found.error());
    return print(fmt::format("{}: valid, {} stage(s)\n", options.graph, found->stages.size()));
  }
  const Json tree = found.ok() ? Json{{"valid", true}, {"stages", found->stages.size()}}
                               : errors_tree(options.graph, found.error(), errors);
  const int printed = print(to_text(tree, options.yaml));
  return printed != 0 || found.ok() ? printed : exit_status(found.error().code);
}

int run_plan(const GraphCommandOptions& options, const graph::PlanOverrides& overrides,
             const graph::ModelProfile& model, const std::vector<graph::Node>& nodes,
             const std::string& note) {
  const auto found = find_graph(options.graph);
  if (!found.ok()) return fail(found.error());
  const auto report = graph::make_plan_report(*found, model, nodes, overrides);
  if (!report.ok()) return fail(report.error());
  const int printed = print(options.json || options.yaml
                                ? to_text(plan_tree(found->name, *report, note), options.yaml)
                                : plan_table(*report, note));
  return printed == 0 && !report->verdict.fits ? exit_status(ErrorCode::no_room) : printed;
}

int run_explain(const std::string& key) {
  if (const auto text = graph::explain_key(key)) return print(*text);
  std::vector<std::string_view> all;
  std::string list;
  for (const graph::KeySpec& spec : graph::graph_keys()) {
    all.push_back(spec.path);
    list += fmt::format("{:<26} {}\n", spec.path, spec.doc);
  }
  if (key.empty()) return print(list);
  return fail({ErrorCode::invalid_argument,
               fmt::format("no graph key '{}'{}", graph::shown(key), graph::hint(key, all))});
}

}  // namespace chainpump::cli
