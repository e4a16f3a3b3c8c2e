// Decode and prefill speed of one model in one process, without links or scheduling: the executor
// alone. Usage: executor_bench MODEL.gguf THREADS [PREFILL_TOKENS [DECODE_TOKENS [STAGES]]].
// Prints medians; see docs for how figures are taken.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/clock.h"
#include "models/gguf/gguf.h"
#include "models/llama/profile.h"
#include "tests/fakes/stage_chain.h"

namespace chainpump {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct BenchOptions {
  std::string path;
  int32_t num_threads = 1;
  int32_t prefill_tokens = 512;
  int32_t decode_tokens = 64;
  int32_t num_stages = 1;
};

Status bench(const BenchOptions& options) {
  ASSIGN_OR_RETURN(const models::GgufFile file, models::GgufFile::open(options.path));
  ASSIGN_OR_RETURN(const graph::ModelProfile profile, models::read_profile(file));
  fakes::ChainOptions chain_options;
  chain_options.num_layers = profile.num_layers;
  chain_options.num_stages = options.num_stages;
  chain_options.spec.num_threads = options.num_threads;
  chain_options.spec.max_microbatch_tokens = options.prefill_tokens;
  chain_options.spec.max_sequences = 4;
  chain_options.spec.context_tokens = options.prefill_tokens + options.decode_tokens + 64;
  chain_options.spec.num_kv_blocks = 4 * (chain_options.spec.context_tokens / 32 + 1);
  if (const char* isa = std::getenv("CHAINPUMP_ISA")) chain_options.spec.isa = isa;
  const TimePoint start = steady_clock().now();
  ASSIGN_OR_RETURN(fakes::StageChain chain, fakes::StageChain::load(options.path, chain_options));
  fmt::print("load {:.3f} s, {}\n", to_seconds(steady_clock().now() - start),
             chain.stage(0).stats().numerics_id);

  graph::SequenceDescriptor descriptor;
  descriptor.sampling.ignore_eos = true;
  descriptor.sampling.max_new_tokens = options.decode_tokens + 1;
  for (int32_t i = 0; i < options.prefill_tokens; ++i) {
    descriptor.prompt.push_back((i * 7919 + 11) % profile.vocabulary_size);
  }
  std::vector<double> prefill;
  std::vector<double> decode;
  for (uint64_t round = 1; round <= 3; ++round) {
    descriptor.id = SequenceId(round);
    chain.begin(descriptor);
    const TimePoint before = steady_clock().now();
    ASSIGN_OR_RETURN(graph::StepResult result,
                     chain.run({{descriptor.id, descriptor.prompt, true}}));
    prefill.push_back(options.prefill_tokens / to_seconds(steady_clock().now() - before));
    for (int32_t i = 0; i < options.decode_tokens; ++i) {
      const TimePoint step = steady_clock().now();
      ASSIGN_OR_RETURN(result, chain.run({{descriptor.id, {result.tokens[0].token}, true}}));
      decode.push_back(1.0 / to_seconds(steady_clock().now() - step));
    }
    chain.release(descriptor.id);
  }
  fmt::print("{} threads, {} stages: prefill {:.0f} tokens/s, decode {:.1f} tokens/s\n",
             options.num_threads, options.num_stages, median(prefill), median(decode));
  return ok_status();
}

}  // namespace
}  // namespace chainpump

int main(int argc, char** argv) {
  chainpump::BenchOptions options;
  if (argc < 3) {
    fmt::print(stderr, "usage: {} MODEL.gguf THREADS [PREFILL [DECODE [STAGES]]]\n", argv[0]);
    return 2;
  }
  options.path = argv[1];
  options.num_threads = std::atoi(argv[2]);
  if (argc > 3) options.prefill_tokens = std::atoi(argv[3]);
  if (argc > 4) options.decode_tokens = std::atoi(argv[4]);
  if (argc > 5) options.num_stages = std::atoi(argv[5]);
  const chainpump::Status status = chainpump::bench(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.error().message);
  return 1;
}
