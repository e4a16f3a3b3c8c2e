// Choosing a token, for `chainpump bench kernels`.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/check.h"
#include "cli/kernel_figures.h"
#include "cli/kernel_timing.h"
#include "kernels/cpu/math.h"
#include "models/sampling/draw.h"

namespace chainpump::cli {
namespace {

struct Draw {
  const char* name;
  float temperature;
  int32_t top_k;
  float top_p;
};

constexpr Draw kDraws[] = {{"greedy", 0.0f, 0, 1.0f},
                           {"draw", 1.5f, 0, 1.0f},
                           {"top-k 40", 1.5f, 40, 1.0f},
                           {"top-p .95", 1.5f, 0, 0.95f}};

/// Median seconds of one draw; the logits are made anew before each, outside the clock.
double time_draw(kernels::cpu::Isa isa, const Draw& draw, const std::vector<float>& logits) {
  constexpr int kRuns = 101;
  graph::SamplingParams params;
  params.temperature = draw.temperature;
  params.top_k = draw.top_k;
  params.top_p = draw.top_p;
  std::vector<float> scratch(logits.size());
  std::vector<double> times;
  for (int run = 0; run < kRuns; ++run) {
    std::copy(logits.begin(), logits.end(), scratch.begin());
    const double uniform = (run + 0.5) / kRuns;
    const TimePoint start = steady_clock().now();
    if (draw.temperature == 0)
      CHECK_GE(kernels::cpu::argmax(isa, scratch), 0);
    else
      CHECK(models::draw_token(isa, params, uniform, scratch).ok());
    times.push_back(to_seconds(steady_clock().now() - start));
  }
  std::sort(times.begin(), times.end());
  return times[kRuns / 2];
}

}  // namespace

std::vector<KernelFigure> measure_sampling(const KernelBench& bench,
                                           const kernels::cpu::MachineRates& rates,
                                           int64_t vocabulary, int64_t step_bytes) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (float& logit : logits) logit = normal(random);
  const double bound = 0.02 * static_cast<double>(step_bytes) / rates.read_bytes_per_second;
  std::vector<KernelFigure> figures;
  for (const Draw& draw : kDraws) {
    figures.push_back({draw.name, DType::f32, fmt::format("of {}", vocabulary), 1,
                       time_draw(bench.isa, draw, logits) * 1e6, bound * 1e6, "us/token"});
  }
  return figures;
}

}  // namespace chainpump::cli
