// What the sequencer costs: next() and on_result() together, per microbatch, with so many sequences
// running, all of them decoding, in one microbatch or spread over the chain. Prints the figures
// beside what they should be; gates nothing.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>

#include "graph/sequencer.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kBlockTokens = 32;
constexpr int32_t kPrompt = 64;

SequencerOptions options_for(int num_running, int num_stages) {
  SequencerOptions options;
  for (int i = 0; i < num_stages; ++i) options.stages.push_back({"stage", num_running * 64});
  options.block_tokens = kBlockTokens;
  options.context_tokens = 64 * kBlockTokens;
  options.max_microbatch_tokens = num_running + 512;
  options.max_sequences = num_running;
  options.max_queued = num_running;
  options.max_microbatches = num_stages;
  options.vocabulary_size = 1000;
  options.decode_delay_max = std::chrono::milliseconds(10);
  options.cost_prior = {1e-3, 1e-5, 1e-9};
  return options;
}

/// What the last stage would answer.
StepResult answer(const Microbatch& microbatch) {
  StepResult result;
  result.id = microbatch.id;
  result.slowest = std::chrono::microseconds(1000 + 10 * microbatch.num_tokens());
  for (const SequenceSlice& slice : microbatch.slices) {
    if (!slice.sample) continue;
    TokenResult& token = result.tokens.emplace_back();
    token.id = slice.id;
    token.position = slice.first_position + static_cast<int32_t>(slice.tokens.size());
    token.token = token.position % 1000;
  }
  return result;
}

struct Figures {
  double median_us = 0;
  double p99_us = 0;
};

Figures measure(int num_running, int num_stages, int num_steps) {
  Sequencer sequencer(options_for(num_running, num_stages));
  for (int i = 0; i < num_running; ++i) {
    Request request;
    request.id = RequestId(static_cast<uint64_t>(i) + 1);
    request.tenant = TenantId(static_cast<uint32_t>(i % 8));
    request.sampling.max_new_tokens = 64 * kBlockTokens;
    for (int p = 0; p < kPrompt; ++p) request.prompt.push_back((p + i) % 1000);
    CHECK(sequencer.submit(std::move(request), {}).ok());
  }
  struct Sent {
    StepResult result;
    Duration forming;
    bool counts;
  };
  std::deque<Sent> in_flight;
  std::vector<double> spent_us;
  Deliveries out;
  while (static_cast<int>(spent_us.size()) < num_steps) {
    const TimePoint began = steady_clock().now();
    const std::optional<Microbatch> microbatch = sequencer.next();
    const Duration forming = steady_clock().now() - began;
    if (microbatch) {
      const bool decodes_only =
          microbatch->descriptors.empty() &&
          microbatch->num_tokens() == static_cast<int32_t>(microbatch->slices.size()) &&
          sequencer.stats().num_running == num_running;
      in_flight.push_back({answer(*microbatch), forming, decodes_only});
      continue;
    }
    CHECK(!in_flight.empty());
    const Sent sent = std::move(in_flight.front());
    in_flight.pop_front();
    out.clear();
    const TimePoint arrived = steady_clock().now();
    const Status taken = sequencer.on_result(sent.result, arrived, out);
    const Duration taking = steady_clock().now() - arrived;
    CHECK_MSG(taken.ok(), "{}", taken.error().message);
    if (sent.counts) spent_us.push_back(to_seconds(sent.forming + taking) * 1e6);
  }
  spent_us.erase(spent_us.begin(), spent_us.begin() + num_steps / 10);
  std::sort(spent_us.begin(), spent_us.end());
  return {spent_us[spent_us.size() / 2], spent_us[spent_us.size() * 99 / 100]};
}

int run() {
  double at_256 = 0;
  for (const int num_stages : {1, 4}) {
    for (const int num_running : {1, 16, 64, 256, 1024, 4096}) {
      const Figures figures = measure(num_running, num_stages, 600);
      const double bound = 20 + 0.15 * num_running;
      fmt::print(
          "sequencer {:4} running, {} stages: {:8.2f} us a microbatch, p99 {:8.2f} "
          "(bound {:.0f}): {:.2f}\n",
          num_running, num_stages, figures.median_us, figures.p99_us, bound,
          figures.median_us / bound);
      if (num_stages != 1) continue;
      if (num_running == 256) at_256 = figures.median_us;
      if (num_running == 4096)
        fmt::print("sequencer 4096 running to 256: {:.1f} (bound 16)\n",
                   figures.median_us / at_256);
    }
  }
  return 0;
}

}  // namespace
}  // namespace chainpump::graph

int main() { return chainpump::graph::run(); }
