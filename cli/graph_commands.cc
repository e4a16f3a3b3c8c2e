#include "cli/graph_commands.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/exit_status.h"
#include "graph/demo_graph.h"
#include "graph/keys.h"

namespace chainpump::cli {
namespace {

int fail(const Error& error) {
  fmt::print(stderr, "{}\n", error.message);
  return exit_status(error.code);
}

int print(const std::string& text) {
  const bool good = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return good ? 0 : 5;
}

std::string plan_json(const graph::PlanReport& report) {
  const graph::Verdict& verdict = report.verdict;
  nlohmann::ordered_json json = {{"fits", verdict.fits},
                                 {"needed_bytes", verdict.needed_bytes},
                                 {"available_bytes", verdict.available_bytes},
                                 {"largest_context_tokens", verdict.largest_context_tokens},
                                 {"context_tokens", report.plan.context_tokens},
                                 {"kv_blocks", report.plan.kv.num_blocks},
                                 {"stages", nlohmann::ordered_json::array()}};
  for (const graph::StagePlan& s : report.plan.stages)
    json["stages"].push_back({{"name", s.name},
                              {"layers", {s.layer_begin, s.layer_end}},
                              {"device", s.device.kind},
                              {"cores", s.device.cores},
                              {"threads", s.num_threads},
                              {"weight_bytes", s.weight_bytes},
                              {"kv_bytes", s.kv_bytes},
                              {"slot_bytes", s.slot_bytes},
                              {"predicted_decode_ms", s.predicted_decode_s * 1e3},
                              {"predicted_prefill_ms", s.predicted_prefill_s * 1e3}});
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string plan_table(const graph::PlanReport& report) {
  std::string out =
      fmt::format("{:<12} {:>9} {:<10} {:>7} {:>11} {:>9} {:>9} {:>10} {:>10}\n", "stage", "layers",
                  "cores", "threads", "weights MB", "KV MB", "slots MB", "decode ms", "prefill ms");
  for (const graph::StagePlan& s : report.plan.stages)
    out += fmt::format(
        "{:<12} {:>9} {:<10} {:>7} {:>11.1f} {:>9.1f} {:>9.1f} {:>10.3f} {:>10.2f}\n", s.name,
        fmt::format("{}-{}", s.layer_begin, s.layer_end),
        s.device.cores.empty() ? "shared" : fmt::format("{}", fmt::join(s.device.cores, ",")),
        s.num_threads, static_cast<double>(s.weight_bytes) / 1e6,
        static_cast<double>(s.kv_bytes) / 1e6, static_cast<double>(s.slot_bytes) / 1e6,
        s.predicted_decode_s * 1e3, s.predicted_prefill_s * 1e3);
  const graph::Verdict& verdict = report.verdict;
  return out + fmt::format("{}: {:.1f} of {:.1f} MB; context {} tokens, largest that fits {}\n",
                           verdict.fits ? "fits" : "does not fit",
                           static_cast<double>(verdict.needed_bytes) / 1e6,
                           static_cast<double>(verdict.available_bytes) / 1e6,
                           report.plan.context_tokens, verdict.largest_context_tokens);
}

}  // namespace

Result<graph::Graph> find_graph(const std::string& name) {
  if (name == "demo") return graph::parse_graph_text(graph::kDemoGraph, "demo");
  return graph::load_graph(name);
}

int run_validate(const GraphCommandOptions& options) {
  const auto found = find_graph(options.graph);
  if (!found.ok()) return fail(found.error());
  if (options.json)
    return print(fmt::format("{{\"valid\": true, \"stages\": {}}}\n", found->stages.size()));
  return print(fmt::format("{}: valid, {} stage(s)\n", options.graph, found->stages.size()));
}

int run_plan(const GraphCommandOptions& options, const graph::PlanOverrides& overrides,
             const graph::ModelProfile& model, const graph::MachineProfile& machine) {
  const auto found = find_graph(options.graph);
  if (!found.ok()) return fail(found.error());
  const auto report = graph::make_plan_report(*found, model, machine, overrides);
  if (!report.ok()) return fail(report.error());
  const int printed = print(options.json ? plan_json(*report) : plan_table(*report));
  return printed == 0 && !report->verdict.fits ? exit_status(ErrorCode::no_room) : printed;
}

int run_explain(const std::string& key) {
  if (const auto text = graph::explain_key(key)) return print(*text);
  std::vector<std::string_view> all;
  for (const graph::KeySpec& spec : graph::graph_keys()) all.push_back(spec.path);
  return fail({ErrorCode::invalid_argument,
               fmt::format("no graph key '{}'{}", graph::shown(key), graph::hint(key, all))});
}

}  // namespace chainpump::cli
