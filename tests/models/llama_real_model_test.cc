// The packaged model end to end in one process: a sensible answer, the same for two cuts, and each
// stage reading no more than its share of the file.
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>

#include "models/gguf/gguf.h"
#include "models/llama/profile.h"
#include "models/tokenizer/tokenizer.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/why.h"

namespace chainpump {
namespace {

std::string model_path() {
  const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
  BOOST_REQUIRE_MESSAGE(path != nullptr && std::filesystem::exists(path),
                        "CHAINPUMP_TEST_MODEL must name the packaged model (make test sets it)");
  return path;
}

fakes::StageChain load(const graph::ModelProfile& profile, int32_t stages, int32_t threads) {
  fakes::ChainOptions options;
  options.num_layers = profile.num_layers;
  options.num_stages = stages;
  options.spec.num_threads = threads;
  options.spec.spin_between_ops = false;
  options.spec.num_kv_blocks = 16;
  options.spec.max_microbatch_tokens = 128;
  options.spec.max_sequences = 2;
  options.spec.context_tokens = 256;
  auto chain = fakes::StageChain::load(model_path(), options);
  BOOST_REQUIRE_MESSAGE(chain.ok(), fakes::why(chain));
  return std::move(*chain);
}

}  // namespace

BOOST_AUTO_TEST_CASE(answers_sensibly_for_any_cut) {
  const auto file = models::GgufFile::open(model_path());
  BOOST_REQUIRE(file.ok());
  const auto profile = models::read_profile(*file);
  BOOST_REQUIRE_MESSAGE(profile.ok(), fakes::why(profile));
  const auto tokenizer = models::load_tokenizer(*file);
  BOOST_REQUIRE_MESSAGE(tokenizer.ok(), fakes::why(tokenizer));
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(1);
  descriptor.sampling.max_new_tokens = 32;
  const auto prompt =
      (*tokenizer)
          ->encode(
              "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
              models::ControlTokens::parse);
  BOOST_REQUIRE(prompt.ok());
  descriptor.prompt = *prompt;

  std::vector<graph::TokenResult> whole;
  for (const int32_t stages : {1, 3}) {
    fakes::StageChain chain = load(*profile, stages, stages == 1 ? 2 : 1);
    const auto made = chain.generate(descriptor, stages == 1 ? 0 : 7);
    BOOST_REQUIRE_MESSAGE(made.ok(), fakes::why(made));
    if (stages == 1) whole = *made;
    BOOST_TEST((*made == whole));
    for (size_t i = 0; i < chain.num_stages(); ++i) {
      const auto begin = static_cast<size_t>(profile->num_layers) * i / chain.num_stages();
      const auto end = static_cast<size_t>(profile->num_layers) * (i + 1) / chain.num_stages();
      int64_t share = i + 1 == chain.num_stages() ? profile->head.total : 0;
      for (size_t layer = begin; layer < end; ++layer) share += profile->layers[layer].total;
      BOOST_TEST(chain.stage(i).stats().weight_bytes_read == share);
    }
  }
  std::string text;
  models::StreamDecoder decoder(**tokenizer);
  for (const graph::TokenResult& token : whole) text += decoder.push(token.token);
  BOOST_TEST_MESSAGE(text);
  BOOST_TEST(text.find("Paris") != std::string::npos);
}

}  // namespace chainpump
