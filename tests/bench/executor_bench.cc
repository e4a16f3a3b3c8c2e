// Decode and prefill speed of one model in one process, without links or scheduling: the executor
// alone. Usage: executor_bench MODEL.gguf THREADS [PREFILL [DECODE [STAGES [SEQUENCES
// [KV_TYPE]]]]], of which PREFILL and DECODE are tokens of each of the SEQUENCES, which are decoded
// at once. Prints the machine's read bandwidth and multiply-add peaks with so many threads, then
// medians of the sums over all sequences.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/clock.h"
#include "kernels/cpu/measure.h"
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
  int32_t num_sequences = 1;
  std::string kv_type = "f32";
};

// Before anything else is loaded, for a fresh look at what decode and prefill are bound by.
void print_machine(int num_threads) {
  kernels::cpu::Team team =
      *kernels::cpu::Team::create({.num_threads = num_threads, .cores = {}, .spin = true});
  const kernels::cpu::Isa isa = kernels::cpu::available_isas().back();
  const kernels::cpu::MachineRates rates = kernels::cpu::measure_machine(isa, team);
  fmt::print("read {:.2f} GB/s, int8 {:.1f} Gop/s, bf16 {:.1f} Gop/s, f32 {:.1f} Gop/s\n",
             rates.read_bytes_per_second / 1e9, rates.int8_ops_per_second / 1e9,
             rates.bf16_ops_per_second / 1e9, rates.f32_ops_per_second / 1e9);
}

// Tokens per second of all sequences together, one value a step.
struct Rates {
  std::vector<double> prefill;
  std::vector<double> decode;
};

// The sequences' prompts one after the other, then all of them at once, a token each.
Status run_round(fakes::StageChain& chain, graph::SequenceDescriptor descriptor,
                 const BenchOptions& options, Rates& rates) {
  std::vector<fakes::Feed> feeds;
  for (int32_t s = 0; s < options.num_sequences; ++s) {
    descriptor.id = SequenceId(static_cast<uint64_t>(s) + 1);
    chain.begin(descriptor);
    const TimePoint before = steady_clock().now();
    ASSIGN_OR_RETURN(const graph::StepResult result,
                     chain.run({{descriptor.id, descriptor.prompt, true}}));
    rates.prefill.push_back(options.prefill_tokens / to_seconds(steady_clock().now() - before));
    feeds.push_back({descriptor.id, {result.tokens[0].token}, true});
  }
  for (int32_t i = 0; i < options.decode_tokens; ++i) {
    const TimePoint before = steady_clock().now();
    ASSIGN_OR_RETURN(const graph::StepResult result, chain.run(feeds));
    rates.decode.push_back(options.num_sequences / to_seconds(steady_clock().now() - before));
    for (size_t s = 0; s < feeds.size(); ++s) feeds[s].tokens = {result.tokens[s].token};
  }
  for (const fakes::Feed& feed : feeds) chain.release(feed.id);
  return ok_status();
}

Status bench(const BenchOptions& options) {
  ASSIGN_OR_RETURN(const models::GgufFile file, models::GgufFile::open(options.path));
  ASSIGN_OR_RETURN(const graph::ModelProfile profile, models::read_profile(file));
  fakes::ChainOptions chain_options;
  chain_options.num_layers = profile.num_layers;
  chain_options.num_stages = options.num_stages;
  chain_options.spec.num_threads = options.num_threads;
  chain_options.spec.max_microbatch_tokens =
      std::max(options.prefill_tokens, options.num_sequences);
  chain_options.spec.max_sequences = options.num_sequences;
  chain_options.spec.context_tokens = options.prefill_tokens + options.decode_tokens + 64;
  chain_options.spec.num_kv_blocks =
      options.num_sequences * (chain_options.spec.context_tokens / 32 + 1);
  const auto kv_type = dtype_from_name(options.kv_type);
  if (!kv_type) return make_error(ErrorCode::invalid_argument, "no type {}", options.kv_type);
  chain_options.spec.kv_type = *kv_type;
  if (const char* isa = std::getenv("CHAINPUMP_ISA")) chain_options.spec.isa = isa;
  print_machine(options.num_threads);
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
  Rates rates;
  for (int round = 0; round < 3; ++round)
    RETURN_IF_ERROR(run_round(chain, descriptor, options, rates));
  fmt::print(
      "{} threads, {} stages, {} sequences: prefill {:.0f} tokens/s, decode {:.1f} tokens/s\n",
      options.num_threads, options.num_stages, options.num_sequences, median(rates.prefill),
      median(rates.decode));
  return ok_status();
}

}  // namespace
}  // namespace chainpump

int main(int argc, char** argv) {
  chainpump::BenchOptions options;
  if (argc < 3) {
    fmt::print(stderr,
               "usage: {} MODEL.gguf THREADS [PREFILL [DECODE [STAGES [SEQUENCES [KV_TYPE]]]]]\n",
               argv[0]);
    return 2;
  }
  options.path = argv[1];
  options.num_threads = std::atoi(argv[2]);
  if (argc > 3) options.prefill_tokens = std::atoi(argv[3]);
  if (argc > 4) options.decode_tokens = std::atoi(argv[4]);
  if (argc > 5) options.num_stages = std::atoi(argv[5]);
  if (argc > 6) options.num_sequences = std::atoi(argv[6]);
  if (argc > 7) options.kv_type = argv[7];
  const chainpump::Status status = chainpump::bench(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.error().message);
  return 1;
}
