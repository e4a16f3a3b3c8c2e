#include "cli/bench_pipeline.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/version.h"
#include "cli/exit_status.h"
#include "cli/pipeline_case.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;
using models::SleepLayer;

constexpr double kRunSeconds = 2;  // of a decoding case, about
constexpr int32_t kLongPrompt = 32768;
constexpr int32_t kFixedChunk = 2048;
constexpr int32_t kFixedChunks[] = {128, 256, 512, 1024, 2048, 4096};
constexpr int32_t kMaxChunk = 4096;

std::string links_of(bool as_processes) { return as_processes ? "tcp" : "loopback"; }

class Bench {
 public:
  explicit Bench(int rounds) : rounds_(rounds) {}

  Status decoding(const std::string& name, const std::vector<SleepLayer>& stages, bool as_processes,
                  int32_t spare_microbatches);
  Status long_prompt(int32_t num_stages, bool as_processes);
  const Json& rows() const { return rows_; }

 private:
  /// The median round by wall time.
  Result<PipelineOutcome> measure(const PipelineCase& c);
  Result<double> prompt_seconds(int32_t num_stages, bool as_processes, int32_t chunk);

  int rounds_;
  Json rows_ = Json::array();
};

Result<PipelineOutcome> Bench::measure(const PipelineCase& c) {
  std::vector<PipelineOutcome> outcomes;
  for (int i = 0; i < rounds_; ++i) {
    ASSIGN_OR_RETURN(const PipelineOutcome outcome, run_pipeline_case(c));
    outcomes.push_back(outcome);
  }
  std::sort(outcomes.begin(), outcomes.end(),
            [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return outcomes[outcomes.size() / 2];
}

Status Bench::decoding(const std::string& name, const std::vector<SleepLayer>& stages,
                       bool as_processes, int32_t spare_microbatches) {
  const auto num_stages = static_cast<int32_t>(stages.size());
  double slowest = 0;
  double once_through_all = 0;
  for (const SleepLayer& layer : stages) {
    slowest = std::max(slowest, layer.overhead_s);
    once_through_all += layer.overhead_s;
  }
  PipelineCase c;
  c.stages = stages;
  c.as_processes = as_processes;
  c.num_requests = 8 * num_stages;
  c.max_microbatches = num_stages + spare_microbatches;
  c.new_tokens = static_cast<int32_t>(kRunSeconds / slowest / (num_stages + 1));
  c.chunk_tokens = 512;
  c.max_microbatch_tokens = 1024;
  ASSIGN_OR_RETURN(const PipelineOutcome outcome, measure(c));
  const auto steps = static_cast<double>(outcome.num_microbatches);
  const double ideal =
      std::max(c.new_tokens * once_through_all, (steps - 1) * slowest + once_through_all);
  rows_.push_back({{"name", name},
                   {"links", links_of(as_processes)},
                   {"stages", num_stages},
                   {"requests", c.num_requests},
                   {"in_flight", c.max_microbatches},
                   {"seconds", outcome.seconds},
                   {"ideal", ideal},
                   {"ratio", ideal / outcome.seconds},
                   {"busy", outcome.busy},
                   {"transfer", outcome.transfer},
                   {"wait_input", outcome.wait_input},
                   {"wait_credit", outcome.wait_credit},
                   {"tokens_per_s", static_cast<double>(outcome.num_tokens) / outcome.seconds},
                   {"tokens_per_microbatch", static_cast<double>(outcome.num_tokens) / steps}});
  return ok_status();
}

std::vector<SleepLayer> long_prompt_stages(int32_t num_stages) {
  return std::vector<SleepLayer>(static_cast<size_t>(num_stages),
                                 {0.3e-3, 32e-6 / num_stages, 1.05e-9 / num_stages});
}

/// What no equal chunks can beat: the least of (n + S - 1) * (a + W / n) over their number n, for
/// the work W of a stage and the overhead a of a step.
double shortest_seconds(int32_t num_stages) {
  const SleepLayer layer = long_prompt_stages(num_stages)[0];
  const double tokens = kLongPrompt;
  const double work = layer.token_s * tokens + layer.attended_s * tokens * tokens / 2;
  const double root = std::sqrt(work) + std::sqrt(layer.overhead_s * (num_stages - 1));
  return root * root;
}

Result<double> Bench::prompt_seconds(int32_t num_stages, bool as_processes, int32_t chunk) {
  PipelineCase c;
  c.stages = long_prompt_stages(num_stages);
  c.as_processes = as_processes;
  c.prompt_tokens = kLongPrompt;
  c.chunk_tokens = chunk;
  c.max_microbatch_tokens = kMaxChunk;
  c.max_microbatches = num_stages + 1;
  ASSIGN_OR_RETURN(const PipelineOutcome outcome, measure(c));
  return outcome.seconds;
}

Status Bench::long_prompt(int32_t num_stages, bool as_processes) {
  ASSIGN_OR_RETURN(const double alone, prompt_seconds(1, as_processes, kMaxChunk));
  ASSIGN_OR_RETURN(const double fitted, prompt_seconds(num_stages, as_processes, 0));
  double fixed = 0;
  double best = 0;
  int32_t best_chunk = 0;
  for (const int32_t chunk : kFixedChunks) {
    ASSIGN_OR_RETURN(const double seconds, prompt_seconds(num_stages, as_processes, chunk));
    if (chunk == kFixedChunk) fixed = seconds;
    if (best_chunk != 0 && seconds >= best) continue;
    best = seconds;
    best_chunk = chunk;
  }
  rows_.push_back({{"name", fmt::format("long prompt, {} stages", num_stages)},
                   {"links", links_of(as_processes)},
                   {"stages", num_stages},
                   {"prompt_tokens", kLongPrompt},
                   {"time_scale", 1},
                   {"seconds", fitted},
                   {"ideal", alone / num_stages},
                   {"ratio", alone / num_stages / fitted},
                   {"bound", shortest_seconds(num_stages)},
                   {"fixed_2048", fixed},
                   {"over_fixed_2048", fixed / fitted},
                   {"best_fixed", best},
                   {"best_fixed_tokens", best_chunk},
                   {"over_best_fixed", best / fitted}});
  return ok_status();
}

Status run_all(Bench& bench) {
  const SleepLayer even{2e-3, 0, 0};
  for (const bool as_processes : {false, true}) {
    for (const int32_t num_stages : {2, 4, 8, 16}) {
      std::fprintf(stderr, "even, %d stages, %s\n", num_stages, links_of(as_processes).c_str());
      const std::vector<SleepLayer> stages(static_cast<size_t>(num_stages), even);
      for (const int32_t spare : {0, 1})
        RETURN_IF_ERROR(bench.decoding(fmt::format("even, {} stages of 2 ms", num_stages), stages,
                                       as_processes, spare));
    }
    std::fprintf(stderr, "uneven, %s\n", links_of(as_processes).c_str());
    RETURN_IF_ERROR(bench.decoding("uneven: 1, 2, 1.5, 1 ms",
                                   {{1e-3, 0, 0}, even, {1.5e-3, 0, 0}, {1e-3, 0, 0}}, as_processes,
                                   1));
    for (const int32_t num_stages : {4, 8}) {
      std::fprintf(stderr, "long prompt, %d stages, %s\n", num_stages,
                   links_of(as_processes).c_str());
      RETURN_IF_ERROR(bench.long_prompt(num_stages, as_processes));
    }
  }
  return ok_status();
}

void print_table(const Json& rows) {
  fmt::print("{:<28} {:<9} {:>8} {:>8} {:>6}\n", "", "links", "seconds", "ideal", "ratio");
  for (const Json& row : rows) {
    fmt::print("{:<28} {:<9} {:>8.3f} {:>8.3f} {:>6.3f}", row["name"].get<std::string>(),
               row["links"].get<std::string>(), row["seconds"].get<double>(),
               row["ideal"].get<double>(), row["ratio"].get<double>());
    if (row.contains("fixed_2048")) {
      fmt::print("  bound {:.3f} s; fixed 2048: {:.3f} s, {:.2f} x; best fixed ({}): {:.3f} s, ",
                 row["bound"].get<double>(), row["fixed_2048"].get<double>(),
                 row["over_fixed_2048"].get<double>(), row["best_fixed_tokens"].get<int>(),
                 row["best_fixed"].get<double>());
      fmt::print("{:.2f} x\n", row["over_best_fixed"].get<double>());
    } else {
      const auto percent = [&](const char* key) { return 100 * row[key].get<double>(); };
      fmt::print("  {} in flight of {:.1f}, {:.0f} tokens/s; % busy {:.1f}, transfer {:.1f}, ",
                 row["in_flight"].get<int>(), row["tokens_per_microbatch"].get<double>(),
                 row["tokens_per_s"].get<double>(), percent("busy"), percent("transfer"));
      fmt::print("input {:.1f}, credit {:.1f}\n", percent("wait_input"), percent("wait_credit"));
    }
  }
  fmt::print("chainpump {} ({}); sleeping stages, time scale 1\n", release(), commit());
}

}  // namespace

int run_bench_pipeline(const BenchPipelineOptions& options) {
  Bench bench(options.rounds);
  if (const Status done = run_all(bench); !done.ok()) {
    std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
    return exit_status(done.error().code);
  }
  if (options.json) {
    const Json all{{"release", release()}, {"commit", commit()}, {"rows", bench.rows()}};
    fmt::print("{}\n", all.dump(1));
  } else {
    print_table(bench.rows());
  }
  return 0;
}

}  // namespace chainpump::cli
