#include "cli/run_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/version.h"
#include "cli/stage_names.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

/// A stage's time without what it spent knowing of no request.
Duration active(const actors::StageReport& s) {
  return s.busy + s.transfer + s.bubble_input + s.bubble_credit;
}

double share(Duration part, Duration whole) {
  return whole.count() > 0 ? to_seconds(part) / to_seconds(whole) : 0;
}

std::string cores_text(const std::vector<int32_t>& cores) {
  return cores.empty() ? "shared" : fmt::format("{}", fmt::join(cores, ","));
}

std::string bytes_text(int64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
}

Json stage_json(const actors::StageReport& s) {
  const Duration whole = active(s);
  Json lanes = Json::array();
  for (const graph::LaneId lane : s.lanes) lanes.push_back(lane.value);
  Json json = {{"lane", s.lanes.front().value},
               {"lanes", lanes},
               {"stage", s.stage.value},
               {"layers", {s.layer_begin, s.layer_end}},
               {"pid", s.pid},
               {"cores", s.cores},
               {"weight_bytes", s.weight_bytes_held},
               {"weight_bytes_read", s.weight_bytes_read},
               {"kv_bytes", s.kv_bytes},
               {"steps", s.steps},
               {"tokens", s.tokens},
               {"tokens_again", s.tokens_again},
               {"busy_share", share(s.busy, whole)},
               {"transfer_share", share(s.transfer, whole)},
               {"bubble_input_share", share(s.bubble_input, whole)},
               {"bubble_credit_share", share(s.bubble_credit, whole)},
               {"wall_ms", to_ms(whole)}};
  if (!s.node.empty()) json["node"] = s.node;
  return json;
}

/// "1234"; of a cluster "1234@b".
std::string process_text(const actors::StageReport& s) {
  return s.node.empty() ? fmt::format("{}", s.pid) : fmt::format("{}@{}", s.pid, s.node);
}

Json link_json(const actors::LinkReport& l) {
  return {{"lane", l.lane.value},
          {"edge", l.edge.value},
          {"transport", l.transport},
          {"frames", l.frames},
          {"payload_bytes", l.payload_bytes},
          {"metadata_bytes", l.metadata_bytes},
          {"copied_bytes", l.copied_bytes},
          {"latency_p50_us", l.latency_p50_us},
          {"latency_p99_us", l.latency_p99_us}};
}

}  // namespace

actors::RuntimeReport since(const actors::RuntimeReport& before,
                            const actors::RuntimeReport& after) {
  actors::RuntimeReport out = after;
  for (size_t i = 0; i < out.stages.size() && i < before.stages.size(); ++i) {
    actors::StageReport& s = out.stages[i];
    const actors::StageReport& b = before.stages[i];
    s.steps -= b.steps;
    s.tokens -= b.tokens;
    s.busy -= b.busy;
    s.transfer -= b.transfer;
    s.bubble_input -= b.bubble_input;
    s.bubble_credit -= b.bubble_credit;
    s.idle -= b.idle;
  }
  for (size_t i = 0; i < out.links.size() && i < before.links.size(); ++i) {
    actors::LinkReport& l = out.links[i];
    const actors::LinkReport& b = before.links[i];
    l.frames -= b.frames;
    l.payload_bytes -= b.payload_bytes;
    l.metadata_bytes -= b.metadata_bytes;
    l.copied_bytes -= b.copied_bytes;
  }
  return out;
}

Json stages_json(const actors::RuntimeReport& report) {
  Json json = Json::array();
  for (const actors::StageReport& s : report.stages) json.push_back(stage_json(s));
  return json;
}

Json links_json(const actors::RuntimeReport& report) {
  Json json = Json::array();
  for (const actors::LinkReport& l : report.links) json.push_back(link_json(l));
  return json;
}

std::string run_json(const Generated& generated, const std::vector<TokenId>& prompt, uint64_t seed,
                     const actors::RuntimeReport& report) {
  const double ttft_s = to_seconds(generated.to_first_token);
  Json json = {
      {"text", generated.text},
      {"token_ids", generated.token_ids},
      {"prompt_token_ids", prompt},
      {"finish_reason", graph::to_string(generated.finish)},
      {"ttft_ms", to_ms(generated.to_first_token)},
      {"tpot_ms", generated.tpot_ms()},
      {"tokens_per_second", generated.tokens_per_second()},
      {"prefill_tokens_per_second", ttft_s > 0 ? static_cast<double>(prompt.size()) / ttft_s : 0},
      {"seed", seed},
      {"version", fmt::format("{}+{}", release(), commit())},
      {"system_fingerprint", report.numerics_id},
      {"stages", stages_json(report)},
      {"links", links_json(report)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string stages_table(const actors::RuntimeReport& report) {
  const bool with_lanes = has_lanes(report);
  const size_t width = stage_width(report);
  size_t process_width = 9;
  for (const actors::StageReport& s : report.stages)
    process_width = std::max(process_width, process_text(s).size() + 2);
  std::string text = fmt::format("{:<{}}{:<8}{:<{}}{:<8}{:>11}{:>11}{:>7}{:>10}{:>12}{:>13}\n",
                                 "stage", width, "layers", "process", process_width, "cores",
                                 "weights", "KV", "busy", "transfer", "wait input", "wait credit");
  for (const actors::StageReport& s : report.stages) {
    const Duration whole = active(s);
    text += fmt::format(
        "{:<{}}{:<8}{:<{}}{:<8}{:>11}{:>11}{:>6.1f}%{:>9.1f}%{:>11.1f}%{:>12.1f}%\n",
        stage_place(s, with_lanes), width, fmt::format("{}-{}", s.layer_begin, s.layer_end - 1),
        process_text(s), process_width, cores_text(s.cores), bytes_text(s.weight_bytes_held),
        bytes_text(s.kv_bytes), 100 * share(s.busy, whole), 100 * share(s.transfer, whole),
        100 * share(s.bubble_input, whole), 100 * share(s.bubble_credit, whole));
  }
  uint32_t num_stages = 1;
  for (const actors::StageReport& s : report.stages)
    num_stages = std::max(num_stages, static_cast<uint32_t>(s.stage.value) + 1);
  text += fmt::format("\n{:<10}{:<18}{:>8}{:>12}{:>14}{:>14}\n", "link", "transport", "frames",
                      "payload", "latency p50", "p99");
  const auto end = [&](const actors::LinkReport& l, uint32_t stage) {
    return with_lanes ? fmt::format("{}.{}", l.lane, stage) : fmt::format("{}", stage);
  };
  for (const actors::LinkReport& l : report.links) {
    const uint32_t to = (l.edge.value + 1) % num_stages;
    text += fmt::format("{:<10}{:<18}{:>8}{:>12}{:>11.1f} us{:>11.1f} us\n",
                        fmt::format("{} -> {}", end(l, l.edge.value), end(l, to)), l.transport,
                        l.frames, bytes_text(static_cast<int64_t>(l.payload_bytes)),
                        l.latency_p50_us, l.latency_p99_us);
  }
  return text;
}

std::string summary(const Generated& generated, size_t num_prompt_tokens,
                    const actors::RuntimeReport& report) {
  return fmt::format(
             "\n{} prompt tokens, {} new ({}): first token after {:.0f} ms, then {:.2f} ms per "
             "token, "
             "{:.1f} tokens/s    chainpump {}+{}\n\n",
             num_prompt_tokens, generated.token_ids.size(), graph::to_string(generated.finish),
             to_ms(generated.to_first_token), generated.tpot_ms(), generated.tokens_per_second(),
             release(), commit()) +
         stages_table(report);
}

}  // namespace chainpump::cli
