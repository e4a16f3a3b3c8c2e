// The executor's log-probabilities against a double-precision forward pass on tiny models of every
// variant of the architecture; and what the readers of hyperparameters and tensors refuse.
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "kernels/cpu/isa.h"
#include "models/llama/config.h"
#include "models/llama/profile.h"
#include "models/npy.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump {
namespace {

struct TempFolder {
  TemporaryFolder folder;
  std::string operator/(const char* name) const { return (folder.path() / name).string(); }
};

fakes::ChainOptions options_for(const fakes::TinyShape& shape) {
  fakes::ChainOptions options;
  options.num_layers = shape.layers;
  options.spec.num_kv_blocks = 32;
  options.spec.max_microbatch_tokens = 128;
  options.spec.max_sequences = 4;
  options.spec.context_tokens = 256;
  return options;
}

std::vector<TokenId> tokens_for(const fakes::TinyShape& shape, int32_t count) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back((i * 37 + i / 5) % shape.vocabulary);
  return tokens;
}

std::vector<float> read_rows(const std::string& path, size_t count) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(models::kNpyHeaderBytes);
  std::vector<float> values(count);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * 4));
  BOOST_REQUIRE(file.good());
  return values;
}

/// `worst_max`, `mean_max`: of the differences of log-probabilities, in nats.
void compare(const fakes::TinyShape& shape, const std::string& isa, bool exact, double worst_max,
             double mean_max) {
  const TempFolder folder;
  const fakes::TinyLlama tiny(shape, 11);
  tiny.write(folder / "tiny.gguf");
  fakes::ChainOptions options = options_for(shape);
  options.num_stages = 2;
  options.spec.isa = isa;
  options.spec.exact_activations = exact;
  auto chain = fakes::StageChain::load(folder / "tiny.gguf", options);
  BOOST_REQUIRE_MESSAGE(chain.ok(), fakes::why(chain));

  constexpr int32_t kTokens = 90;
  const auto vocabulary = static_cast<size_t>(shape.vocabulary);
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(1);
  descriptor.prompt = tokens_for(shape, kTokens);
  descriptor.score = {0, folder / "full.npy"};
  BOOST_REQUIRE(models::write_npy_header(folder / "full.npy", kTokens - 1, shape.vocabulary).ok());
  const auto scores = chain->score(descriptor, 40);
  BOOST_REQUIRE_MESSAGE(scores.ok(), fakes::why(scores));
  BOOST_REQUIRE_EQUAL(scores->size(), size_t{kTokens - 1});

  const auto expected = tiny.log_probs(descriptor.prompt);
  const auto full = read_rows(folder / "full.npy", (kTokens - 1) * vocabulary);
  double worst = 0.0;
  double sum = 0.0;
  for (size_t p = 0; p + 1 < kTokens; ++p) {
    const auto next = static_cast<size_t>(descriptor.prompt[p + 1]);
    BOOST_TEST((*scores)[p].position == static_cast<int32_t>(p));
    BOOST_TEST((*scores)[p].logprob == full[p * vocabulary + next]);
    const auto row = full.begin() + static_cast<ptrdiff_t>(p * vocabulary);
    const auto best = std::max_element(row, row + static_cast<ptrdiff_t>(vocabulary));
    BOOST_TEST((*scores)[p].argmax == static_cast<TokenId>(best - row));
    for (size_t v = 0; v < vocabulary; ++v) {
      const double difference = std::fabs(full[p * vocabulary + v] - expected[p][v]);
      worst = std::max(worst, difference);
      sum += difference;
    }
  }
  const double mean = sum / static_cast<double>(full.size());
  BOOST_TEST_MESSAGE(fmt::format("isa {} worst {:.2e}, mean {:.2e} nats", isa, worst, mean));
  BOOST_TEST(worst < worst_max);
  BOOST_TEST(mean < mean_max);
  BOOST_TEST(worst > 0.0);  // f32 against f64: equal would mean that nothing was compared
}

}  // namespace

BOOST_AUTO_TEST_CASE(equals_a_double_precision_forward) {
  std::vector<fakes::TinyShape> shapes(8);
  shapes[1].tied = false;
  shapes[2].biases = true;
  shapes[3].scaling = "linear";
  shapes[4].scaling = "yarn";
  shapes[5].freq_factors = true;
  shapes[6].rotary = 8;     // part of each head only
  shapes[7].heads = 2;      // no grouping
  shapes[7].head_dim = 48;  // q_size is not hidden
  shapes[7].rotary = 48;
  for (const auto isa : kernels::cpu::available_isas()) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      BOOST_TEST_CONTEXT("shape " << i << " on " << to_string(isa)) {
        compare(shapes[i], std::string(to_string(isa)), true, 2e-4, 1e-5);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(rounded_activations_stay_near) {
  fakes::TinyShape shape;
  shape.weights = DType::q8_0;
  compare(shape, "", true, 2e-4, 1e-5);
  compare(shape, "", false, 1.0, 0.15);
  shape.weights = DType::bf16;
  compare(shape, "", true, 2e-4, 1e-5);
  compare(shape, "", false, 1.0, 0.05);
}

BOOST_AUTO_TEST_CASE(profile_adds_up) {
  const TempFolder folder;
  const fakes::TinyShape shape;
  fakes::TinyLlama(shape, 3).write(folder / "tiny.gguf");
  const auto file = models::GgufFile::open(folder / "tiny.gguf");
  BOOST_REQUIRE(file.ok());
  const auto profile = models::read_profile(*file);
  BOOST_REQUIRE_MESSAGE(profile.ok(), fakes::why(profile));
  BOOST_TEST(profile->num_layers == 5);
  BOOST_TEST(profile->head_dim == 16);
  BOOST_TEST(profile->vocabulary_size == 80);
  BOOST_TEST(profile->tied_head);
  BOOST_TEST(profile->embedding.total == 80 * 64 * 4);
  BOOST_TEST(profile->head.total == 80 * 64 * 4 + 64 * 4);
  const int64_t layer = 4 * (2 * 64 + 64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3);
  for (const graph::WeightBytes& bytes : profile->layers) BOOST_TEST(bytes.total == layer);

  // A stage reads its own tensors and no others.
  fakes::ChainOptions options = options_for(shape);
  options.num_stages = 3;
  auto chain = fakes::StageChain::load(folder / "tiny.gguf", options);
  BOOST_REQUIRE(chain.ok());
  BOOST_TEST(chain->stage(0).stats().weight_bytes_read == layer);
  BOOST_TEST(chain->stage(1).stats().weight_bytes_read == 2 * layer);
  BOOST_TEST(chain->stage(2).stats().weight_bytes_read == 2 * layer + profile->head.total);
  BOOST_TEST(chain->stage(0).stats().numerics_id == chain->stage(2).stats().numerics_id);
}

namespace {

/// A minimal header with one key changed; the message of what reading it says.
std::string refusal(std::string_view key, double value, std::string_view text = {}) {
  const TempFolder folder;
  fakes::GgufWriter writer;
  const std::pair<const char*, uint32_t> sizes[] = {
      {"llama.block_count", 1},          {"llama.context_length", 64},
      {"llama.embedding_length", 32},    {"llama.feed_forward_length", 32},
      {"llama.attention.head_count", 2}, {"llama.attention.head_count_kv", 1}};
  if (key != "general.architecture") writer.key("general.architecture", std::string_view("llama"));
  for (const auto& [name, size] : sizes) {
    if (key != name) writer.key(name, size);
  }
  if (key != "llama.attention.layer_norm_rms_epsilon") {
    writer.key("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  }
  if (!text.empty()) {
    writer.key(key, text);
  } else if (value != std::floor(value) || value < 0) {
    writer.key(key, static_cast<float>(value));
  } else if (!std::isnan(value)) {
    writer.key(key, static_cast<uint32_t>(value));
  }
  writer.tensor("token_embd.weight", {32, 4}, DType::f32, std::vector<std::byte>(32 * 4 * 4));
  writer.write(folder / "bad.gguf");
  const auto file = models::GgufFile::open(folder / "bad.gguf");
  BOOST_REQUIRE(file.ok());
  const auto profile = models::read_profile(*file);
  BOOST_REQUIRE(!profile.ok());
  return fmt::format("{}: {}", to_string(profile.error().code), profile.error().message);
}

void check_refused(const std::string& said, std::string_view code, std::string_view what) {
  BOOST_TEST_CONTEXT(said) {
    BOOST_TEST(said.starts_with(code));
    BOOST_TEST(said.find(what) != std::string::npos);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(hostile_keys_are_named) {
  const std::string_view bad = "bad_file";
  for (const char* key :
       {"llama.block_count", "llama.context_length", "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
        "llama.attention.layer_norm_rms_epsilon"}) {
    check_refused(refusal(key, 0), bad, key);
    check_refused(refusal(key, -1.5), bad, key);
    check_refused(refusal(key, 4294967295.0), bad, key);
    check_refused(refusal(key, 0, "many"), bad, key);
  }
  check_refused(refusal("llama.attention.head_count_kv", 3), bad, "head_count_kv");
  check_refused(refusal("llama.attention.head_count", 5), bad, "head_count");
  check_refused(refusal("llama.attention.key_length", 7), bad, "key_length");
  check_refused(refusal("llama.rope.dimension_count", 18), bad, "rope.dimension_count");
  check_refused(refusal("llama.rope.dimension_count", 3), bad, "rope.dimension_count");
  check_refused(refusal("llama.rope.freq_base", -1.5), bad, "rope.freq_base");
  check_refused(refusal("llama.rope.scaling.factor", -1.5), bad, "rope.scaling.factor");
  check_refused(refusal("llama.block_count", 4000), bad, "llama.block_count");
  check_refused(refusal("llama.rope.scaling.type", 0, "longrope"), "unimplemented", "longrope");
  check_refused(refusal("llama.expert_count", 8), "unimplemented", "expert_count");
  check_refused(refusal("llama.attention.value_length", 8), "unimplemented", "values of 8");
  check_refused(refusal("general.architecture", 0, "qwen3"), "unimplemented", "qwen3");
  check_refused(refusal("general.name", 0, "no tensors"), bad, "output_norm.weight is missing");
}

}  // namespace chainpump
