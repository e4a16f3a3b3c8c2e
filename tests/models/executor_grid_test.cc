// The one law on the executor for contexts of several attention steps: equal bits for every KV
// type, chunk, team, number of neighbours and instruction set, and for decode replayed as prefill.
#include <boost/test/unit_test.hpp>

#include <filesystem>

#include "kernels/cpu/isa.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump {
namespace {

using fakes::prompt_of;

constexpr int32_t kPrompt = 420;
constexpr int32_t kNew = 24;

struct Setting {
  DType kv;
  int32_t threads;
  int32_t chunk;       // 0: the whole prompt at once
  int32_t num_beside;  // other sequences in every microbatch
  std::string isa;
};

struct Model {
  TemporaryFolder temporary;
  std::filesystem::path folder = temporary.path();
  fakes::TinyShape shape;

  Model(int32_t heads, int32_t kv_heads, int32_t head_dim) {
    shape.layers = 2;
    shape.heads = heads;
    shape.kv_heads = kv_heads;
    shape.head_dim = shape.rotary = head_dim;
    // Rows of q8_0 are whole blocks of 32.
    shape.weights = heads * head_dim % 32 == 0 ? DType::q8_0 : DType::bf16;
    fakes::TinyLlama(shape, 5).write(folder / "tiny.gguf");
  }

  fakes::StageChain load(const Setting& setting) const {
    fakes::ChainOptions options;
    options.num_layers = shape.layers;
    options.spec.num_threads = setting.threads;
    options.spec.spin_between_ops = false;
    options.spec.kv_type = setting.kv;
    options.spec.num_kv_blocks = 4 * 16;
    options.spec.max_microbatch_tokens = 4 * 512;
    options.spec.max_sequences = 4;
    options.spec.context_tokens = 512;
    options.spec.isa = setting.isa;
    auto chain = fakes::StageChain::load(folder / "tiny.gguf", options);
    BOOST_REQUIRE_MESSAGE(chain.ok(), fakes::why(chain));
    return std::move(*chain);
  }
};

graph::SequenceDescriptor request(uint64_t id, int32_t prompt_tokens) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(id);
  descriptor.prompt = prompt_of(prompt_tokens, static_cast<int32_t>(id));
  descriptor.sampling.ignore_eos = true;
  descriptor.sampling.max_new_tokens = kNew;
  descriptor.sampling.num_top_logprobs = 3;
  return descriptor;
}

/// The tokens of sequence 1 with their log-probabilities. Sequences beside it decode while it is in
/// prefill and are in prefill while it decodes, each at a length of its own.
std::vector<graph::TokenResult> run(const Model& model, const Setting& setting, int32_t replayed,
                                    const std::vector<graph::TokenResult>& known) {
  fakes::StageChain chain = model.load(setting);
  graph::SequenceDescriptor ours = request(1, kPrompt);
  for (int32_t i = 0; i < replayed; ++i)
    ours.generated.push_back(known[static_cast<size_t>(i)].token);
  std::vector<TokenId> tokens = ours.prompt;
  tokens.insert(tokens.end(), ours.generated.begin(), ours.generated.end());
  chain.begin(ours);
  std::vector<std::vector<TokenId>> beside;
  std::vector<size_t> beside_at(static_cast<size_t>(setting.num_beside), 0);
  for (int32_t i = 0; i < setting.num_beside; ++i) {
    beside.push_back(prompt_of(500, 7 + i));
    chain.begin(request(static_cast<uint64_t>(2 + i), 500));
  }
  const size_t step = setting.chunk > 0 ? static_cast<size_t>(setting.chunk) : tokens.size();
  size_t at = 0;
  std::vector<graph::TokenResult> made;
  while (made.empty() || made.back().finish == graph::FinishReason::none) {
    std::vector<fakes::Feed> feeds;
    for (size_t i = 0; i < beside.size(); ++i) {
      const size_t count = std::min(beside[i].size() - beside_at[i], i == 0 ? size_t{1} : 17);
      if (count == 0) continue;
      const auto begin = beside[i].begin() + static_cast<ptrdiff_t>(beside_at[i]);
      feeds.push_back({SequenceId(2 + i), {begin, begin + static_cast<ptrdiff_t>(count)}, false});
      beside_at[i] += count;
    }
    if (made.empty()) {
      const size_t end = std::min(at + step, tokens.size());
      feeds.push_back({ours.id,
                       {tokens.begin() + static_cast<ptrdiff_t>(at),
                        tokens.begin() + static_cast<ptrdiff_t>(end)},
                       end == tokens.size()});
      at = end;
    } else {
      feeds.push_back({ours.id, {made.back().token}, true});
    }
    auto result = chain.run(feeds);
    BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
    made.insert(made.end(), result->tokens.begin(), result->tokens.end());
  }
  return made;
}

void check_grid(const Model& model, const std::vector<int32_t>& chunks) {
  for (const DType kv : {DType::f32, DType::bf16, DType::f16, DType::int8}) {
    const auto expected = run(model, {kv, 1, 0, 0, ""}, 0, {});
    BOOST_REQUIRE_EQUAL(expected.size(), static_cast<size_t>(kNew));
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) {
      for (const int32_t threads : {1, 2}) {
        for (const int32_t chunk : chunks) {
          for (const int32_t num_beside : {0, 1, 2}) {
            const Setting setting{kv, threads, chunk, num_beside,
                                  std::string(kernels::cpu::to_string(isa))};
            BOOST_TEST_CONTEXT(to_string(kv)
                               << " KV, " << setting.isa << ", " << threads << " threads, chunk "
                               << chunk << ", " << num_beside << " beside") {
              BOOST_TEST((run(model, setting, 0, {}) == expected));
              const auto rest = run(model, setting, 11, expected);
              BOOST_TEST(
                  std::equal(rest.begin(), rest.end(), expected.begin() + 11, expected.end()));
            }
          }
        }
      }
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(grouped_heads) { check_grid(Model(9, 3, 64), {1, 33, 128, 0}); }
BOOST_AUTO_TEST_CASE(odd_heads) { check_grid(Model(5, 1, 24), {7, 100, 0}); }
BOOST_AUTO_TEST_CASE(single_heads) { check_grid(Model(2, 2, 96), {32, 0}); }

}  // namespace chainpump
