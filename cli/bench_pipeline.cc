#include "cli/bench_pipeline.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "actors/os/signals.h"
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
constexpr int32_t kFixedChunks[] = {256, 512, 1024, 2048, 4096};
constexpr int32_t kMaxChunk = 4096;
constexpr int32_t kRequestsPerStage = 8;

std::string links_of(bool as_processes) { return as_processes ? "tcp" : "loopback"; }

template <typename T, typename By>
T median(std::vector<T> values, By by) {
  std::sort(values.begin(), values.end(),
            [&](const T& a, const T& b) { return std::invoke(by, a) < std::invoke(by, b); });
  return values[values.size() / 2];
}

double median(std::vector<double> values) { return median(std::move(values), std::identity{}); }

class Bench {
 public:
  explicit Bench(int rounds) : rounds_(rounds) {}

  Status decoding(const std::string& name, const std::vector<SleepLayer>& stages,
                  bool as_processes);
  Status long_prompt(int32_t num_stages, bool as_processes);
  const Json& rows() const { return rows_; }

 private:
  int rounds_;
  Json rows_ = Json::array();
};

/// As many microbatches as stages hold all requests between them, and one of them ends whenever
/// the slowest stage has done a step: no schedule of equal microbatches gives more tokens.
Status Bench::decoding(const std::string& name, const std::vector<SleepLayer>& stages,
                       bool as_processes) {
  const auto num_stages = static_cast<int32_t>(stages.size());
  double slowest = 0;
  for (const SleepLayer& layer : stages) slowest = std::max(slowest, layer.overhead_s);
  PipelineCase c;
  c.stages = stages;
  c.as_processes = as_processes;
  c.num_requests = kRequestsPerStage * num_stages;
  c.max_microbatches = 2 * num_stages;
  c.new_tokens = std::max(40, static_cast<int32_t>(kRunSeconds / slowest / num_stages));
  c.chunk_tokens = 512;
  c.max_microbatch_tokens = 1024;
  ASSIGN_OR_RETURN(PipelineRun run, PipelineRun::start(c));
  std::vector<DecodeFigures> rounds;
  for (int i = 0; i < rounds_; ++i) {
    ASSIGN_OR_RETURN(const DecodeFigures figures, run.decode());
    rounds.push_back(figures);
  }
  const DecodeFigures figures = median(std::move(rounds), &DecodeFigures::tokens_per_s);
  const double ideal = kRequestsPerStage / slowest;
  rows_.push_back({{"name", name},
                   {"links", links_of(as_processes)},
                   {"stages", num_stages},
                   {"requests", c.num_requests},
                   {"tokens_per_s", figures.tokens_per_s},
                   {"ideal", ideal},
                   {"ratio", figures.tokens_per_s / ideal},
                   {"busy", figures.busy},
                   {"transfer", figures.transfer},
                   {"wait_input", figures.wait_input},
                   {"wait_credit", figures.wait_credit},
                   {"tokens_per_microbatch", figures.tokens_per_microbatch}});
  return ok_status();
}

std::vector<SleepLayer> long_prompt_stages(int32_t num_stages) {
  return std::vector<SleepLayer>(static_cast<size_t>(num_stages),
                                 {0.3e-3, 32e-6 / num_stages, 1.05e-9 / num_stages});
}

/// What no chunks can beat: the least of (n + S - 1) * (a + W / n) over their number n, for the
/// work W of a stage and the overhead a of a step.
double shortest_seconds(int32_t num_stages) {
  const SleepLayer layer = long_prompt_stages(num_stages)[0];
  const double tokens = kLongPrompt;
  const double work = layer.token_s * tokens + layer.attended_s * tokens * tokens / 2;
  const double root = std::sqrt(work) + std::sqrt(layer.overhead_s * (num_stages - 1));
  return root * root;
}

Result<PipelineRun> start_prompts(int32_t num_stages, bool as_processes, int32_t chunk) {
  PipelineCase c;
  c.stages = long_prompt_stages(num_stages);
  c.as_processes = as_processes;
  c.prompt_tokens = kLongPrompt;
  c.chunk_tokens = chunk;
  c.max_microbatch_tokens = kMaxChunk;
  c.max_microbatches = 2 * num_stages;
  return PipelineRun::start(c);
}

Status Bench::long_prompt(int32_t num_stages, bool as_processes) {
  ASSIGN_OR_RETURN(PipelineRun alone_run, start_prompts(1, as_processes, kMaxChunk));
  ASSIGN_OR_RETURN(const double alone, alone_run.prompt_seconds());
  std::vector<int32_t> chunks = {0};
  chunks.insert(chunks.end(), std::begin(kFixedChunks), std::end(kFixedChunks));
  std::vector<PipelineRun> runs;
  for (const int32_t chunk : chunks) {
    ASSIGN_OR_RETURN(PipelineRun run, start_prompts(num_stages, as_processes, chunk));
    runs.push_back(std::move(run));
  }
  RETURN_IF_ERROR(runs[0].prompt_seconds());  // what a step costs is learned from it
  std::vector<std::vector<double>> seconds(chunks.size());
  for (int round = 0; round < rounds_; ++round) {
    for (size_t i = 0; i < runs.size(); ++i) {
      ASSIGN_OR_RETURN(const double took, runs[i].prompt_seconds());
      seconds[i].push_back(took);
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& of_chunk : seconds) medians.push_back(median(of_chunk));
  const double fitted = medians[0];
  const auto best = std::min_element(medians.begin() + 1, medians.end());
  const auto fixed = std::find(chunks.begin(), chunks.end(), kFixedChunk);
  const double fixed_2048 = medians[static_cast<size_t>(fixed - chunks.begin())];
  rows_.push_back({{"name", fmt::format("long prompt, {} stages", num_stages)},
                   {"links", links_of(as_processes)},
                   {"stages", num_stages},
                   {"prompt_tokens", kLongPrompt},
                   {"time_scale", 1},
                   {"seconds", fitted},
                   {"ideal", alone / num_stages},
                   {"ratio", alone / num_stages / fitted},
                   {"bound", alone / num_stages / shortest_seconds(num_stages)},
                   {"fixed_2048", fixed_2048},
                   {"over_fixed_2048", fixed_2048 / fitted},
                   {"best_fixed", *best},
                   {"best_fixed_tokens", chunks[static_cast<size_t>(best - medians.begin())]},
                   {"over_best_fixed", *best / fitted}});
  return ok_status();
}

Status run_all(Bench& bench) {
  const SleepLayer even{2e-3, 0, 0};
  for (const bool as_processes : {false, true}) {
    for (const int32_t num_stages : {2, 4, 8, 16}) {
      std::fprintf(stderr, "even, %d stages, %s\n", num_stages, links_of(as_processes).c_str());
      const std::vector<SleepLayer> stages(static_cast<size_t>(num_stages), even);
      RETURN_IF_ERROR(
          bench.decoding(fmt::format("even, {} stages of 2 ms", num_stages), stages, as_processes));
    }
    std::fprintf(stderr, "uneven, %s\n", links_of(as_processes).c_str());
    RETURN_IF_ERROR(bench.decoding("uneven: 1, 2, 1.5, 1 ms",
                                   {{1e-3, 0, 0}, even, {1.5e-3, 0, 0}, {1e-3, 0, 0}},
                                   as_processes));
    for (const int32_t num_stages : {4, 8}) {
      std::fprintf(stderr, "long prompt, %d stages, %s\n", num_stages,
                   links_of(as_processes).c_str());
      RETURN_IF_ERROR(bench.long_prompt(num_stages, as_processes));
    }
  }
  return ok_status();
}

void print_table(const Json& rows) {
  for (const Json& row : rows) {
    const auto number = [&](const char* key) { return row[key].get<double>(); };
    fmt::print("{:<26} {:<9} ", row["name"].get<std::string>(), row["links"].get<std::string>());
    if (row.contains("fixed_2048")) {
      fmt::print("{:7.3f} s, scaling {:.3f} of the ideal, {:.3f} is the most; ", number("seconds"),
                 number("ratio"), number("bound"));
      fmt::print("fixed 2048: {:.2f} x; best fixed ({}): {:.2f} x\n", number("over_fixed_2048"),
                 row["best_fixed_tokens"].get<int>(), number("over_best_fixed"));
    } else {
      fmt::print("{:7.0f} tokens/s, {:.3f} of the ideal, {:.1f} a microbatch; ",
                 number("tokens_per_s"), number("ratio"), number("tokens_per_microbatch"));
      fmt::print("% busy {:.1f}, transfer {:.1f}, input {:.1f}, credit {:.1f}\n",
                 100 * number("busy"), 100 * number("transfer"), 100 * number("wait_input"),
                 100 * number("wait_credit"));
    }
  }
  fmt::print("chainpump {} ({}); sleeping stages, time scale 1\n", release(), commit());
}

}  // namespace

int run_bench_pipeline(const BenchPipelineOptions& options) {
  // There is nothing to finish: the ranks end with their parent. By a thread of its own, so that it
  // ends whatever the others do, and also where whoever started it has set the signals to be
  // ignored, as a shell does for commands in the background.
  const auto listening = os::TerminationSignals::create([](int signal) { ::_exit(128 + signal); });
  if (!listening.ok()) {
    std::fprintf(stderr, "chainpump: %s\n", listening.error().message.c_str());
    return exit_status(listening.error().code);
  }
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
