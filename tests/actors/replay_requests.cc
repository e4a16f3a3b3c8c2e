// The requests of a replay, and what each gets alone.
#include <algorithm>

#include "base/check.h"
#include "tests/actors/replay.h"
#include "tests/fakes/random.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/tiny_llama.h"

namespace chainpump::actors {
namespace {

using fakes::Random;

TokenId draw_token(Random& random) { return random.pick(ReplayModel::kVocabulary - 1); }

/// One of few beginnings, cut anywhere, and now and then an ending of its own.
std::vector<TokenId> draw_prompt(Random& random) {
  const int num_common = 1 + random.pick(random.chance(3) ? 170 : 60);
  std::vector<TokenId> prompt = fakes::prompt_of(num_common, random.pick(3));
  if (random.chance(2))
    for (int i = random.pick(12); i > 0; --i) prompt.push_back(draw_token(random));
  return prompt;
}

void draw_choosing(Random& random, graph::SamplingParams& params) {
  if (!random.chance(3)) params.temperature = static_cast<float>(random.uniform(0.3, 2));
  if (random.chance(3)) params.top_p = static_cast<float>(random.uniform(0.3, 1));
  if (random.chance(4)) params.top_k = 1 + random.pick(30);
  if (random.chance(5)) params.min_p = static_cast<float>(random.uniform(0, 0.2));
  if (random.chance(3)) params.repetition_penalty = static_cast<float>(random.uniform(0.8, 1.5));
  if (random.chance(4)) params.presence_penalty = static_cast<float>(random.uniform(-1, 2));
  if (random.chance(4)) params.frequency_penalty = static_cast<float>(random.uniform(-1, 2));
  if (random.chance(4)) {
    const TokenId first = draw_token(random);
    for (TokenId i = 0; i < 5; ++i)
      params.logit_bias.emplace_back((first + 7 * i) % ReplayModel::kVocabulary,
                                     static_cast<float>(random.uniform(-100, 4)));
  }
}

void draw_ending(Random& random, graph::SamplingParams& params) {
  params.max_new_tokens = 1 + random.pick(random.chance(3) ? 140 : 16);
  params.ignore_eos = !random.chance(3);
  if (random.chance(4))
    for (int i = 1 + random.pick(3); i > 0; --i)
      params.stop_token_ids.push_back(draw_token(random));
  if (random.chance(3)) {
    // Its letters: across two tokens, or the beginning of one.
    const std::string text = fakes::TinyLlama::text_of(draw_token(random)) +
                             fakes::TinyLlama::text_of(draw_token(random));
    const auto from = static_cast<size_t>(random.pick(2));
    params.stop.push_back(text.substr(from, static_cast<size_t>(2 + random.pick(2))));
    params.stop.push_back(text);
  }
  params.num_top_logprobs = random.pick(7) - 1;
}

Asked draw_request(Random& random, uint64_t number) {
  Asked asked;
  graph::Request& request = asked.request;
  request.id = RequestId(number);
  request.tenant = graph::TenantId(static_cast<uint32_t>(random.pick(2)));
  request.cache_salt = request.tenant.value;
  request.priority = random.chance(4) ? random.pick(3) - 1 : 0;
  request.prompt = draw_prompt(random);
  draw_choosing(random, request.sampling);
  draw_ending(random, request.sampling);
  request.sampling.seed = random.next();
  if (request.prompt.size() > 1 && random.chance(6)) {
    request.score.first_position = random.pick(static_cast<int>(request.prompt.size()) - 1);
  } else if (random.chance(4)) {
    request.num_choices = 2 + random.pick(3);
    request.first_choice = static_cast<uint32_t>(random.pick(2));
  } else {
    request.first_choice = static_cast<uint32_t>(random.pick(3));
    asked.resumes = random.chance(4);
  }
  return asked;
}

Outcome run_alone(fakes::StageChain& chain, const graph::Request& request, int choice) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(1);
  descriptor.sequence_index = request.first_choice + static_cast<uint32_t>(choice);
  descriptor.sampling = request.sampling;
  // As at admission: the last token that is made needs no position.
  const int32_t room = ReplayModel::kContext - static_cast<int32_t>(request.prompt.size()) + 1;
  descriptor.sampling.max_new_tokens = std::min(descriptor.sampling.max_new_tokens, room);
  descriptor.score = request.score;
  descriptor.prompt = request.prompt;
  Outcome outcome;
  if (request.score.first_position >= 0) {
    auto scores = chain.score(descriptor, 0);
    CHECK_MSG(scores.ok(), "{}", scores.error().message);
    outcome.scores = std::move(*scores);
  } else {
    auto tokens = chain.generate(descriptor, 0);
    CHECK_MSG(tokens.ok(), "{}", tokens.error().message);
    outcome.tokens = std::move(*tokens);
  }
  return outcome;
}

}  // namespace

ReplayModel::ReplayModel() {
  fakes::TinyShape shape;
  shape.layers = kLayers;
  shape.vocabulary = kVocabulary;
  shape.weights = DType::q8_0;
  shape.text = true;
  fakes::TinyLlama(shape, 5).write(path());
}

std::vector<Asked> draw_requests(uint64_t seed, int count) {
  Random random(seed);
  std::vector<Asked> asked;
  for (int i = 0; i < count; ++i)
    asked.push_back(draw_request(random, static_cast<uint64_t>(i) + 1));
  return asked;
}

std::vector<std::vector<Outcome>> run_alone(const ReplayModel& model, DType kv_type,
                                            const std::vector<Asked>& asked) {
  fakes::ChainOptions options;
  options.num_layers = ReplayModel::kLayers;
  options.spec.kv_type = kv_type;
  options.spec.num_kv_blocks = 16;
  options.spec.max_microbatch_tokens = ReplayModel::kContext;
  options.spec.max_sequences = 2;
  options.spec.context_tokens = ReplayModel::kContext;
  auto chain = fakes::StageChain::load(model.path(), options);
  CHECK_MSG(chain.ok(), "{}", chain.error().message);
  std::vector<std::vector<Outcome>> outcomes;
  for (const Asked& each : asked) {
    std::vector<Outcome>& choices = outcomes.emplace_back();
    for (int i = 0; i < each.request.num_choices; ++i)
      choices.push_back(run_alone(*chain, each.request, i));
  }
  return outcomes;
}

}  // namespace chainpump::actors
