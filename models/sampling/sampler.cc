#include "models/sampling/sampler.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/check.h"
#include "base/philox.h"
#include "kernels/cpu/math.h"
#include "models/sampling/descending.h"
#include "models/sampling/draw.h"
#include "models/sampling/stop_text.h"
#include "models/sampling/token_counts.h"

namespace chainpump::models {
namespace {

namespace cpu = kernels::cpu;
using graph::FinishReason;

bool has_penalties(const graph::SamplingParams& p) {
  return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
}

Status check_tokens(std::string_view what, const std::vector<TokenId>& tokens, int32_t vocabulary) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= vocabulary)
      return make_error(ErrorCode::invalid_argument, "{} holds token {}, the vocabulary has {}",
                        what, token, vocabulary);
  }
  return ok_status();
}

/// Log-probabilities of the distribution as the model gave it.
class Logprobs {
 public:
  Logprobs(cpu::Isa isa, std::span<const float> logits)
      : isa_(isa), logits_(logits.begin(), logits.end()), log_sum_(cpu::log_sum_exp(isa, logits)) {}

  bool valid() const { return log_sum_ - log_sum_ == 0; }  // neither NaN nor infinite
  /// Never above 0, whatever the sum's rounding.
  float of(TokenId token) const {
    const double difference = static_cast<double>(logits_[static_cast<size_t>(token)]) - log_sum_;
    return static_cast<float>(std::min(difference, 0.0));
  }
  std::vector<std::pair<TokenId, float>> top(size_t n) const {
    std::vector<std::pair<TokenId, float>> out;
    for (const RankedToken& ranked : first_in_order(isa_, logits_, n))
      out.emplace_back(ranked.token, of(ranked.token));
    return out;
  }

 private:
  cpu::Isa isa_;
  std::vector<float> logits_;
  double log_sum_;
};

}  // namespace

struct Sampler::State {
  State(const graph::SequenceDescriptor& descriptor, const Tokenizer* its_tokenizer,
        cpu::Isa its_isa)
      : id(descriptor.id),
        params(descriptor.sampling),
        sequence_index(descriptor.sequence_index),
        tokenizer(its_tokenizer),
        isa(its_isa),
        counts_tokens(has_penalties(params)),
        stop_text(params.stop) {}

  /// The token's part in the state; how many bytes of text stay if it completes a stop string.
  std::optional<int64_t> take(TokenId token);
  Result<TokenId> choose(std::span<float> logits) const;
  bool ends_turn(TokenId token) const;

  SequenceId id;
  graph::SamplingParams params;
  uint32_t sequence_index;
  const Tokenizer* tokenizer;
  cpu::Isa isa;
  bool counts_tokens;
  TokenCounts counts;
  StopText stop_text;
  int32_t position = 0;  // of the next token
  int32_t num_generated = 0;
};

std::optional<int64_t> Sampler::State::take(TokenId token) {
  ++position;
  ++num_generated;
  if (counts_tokens) counts.add_output(token);
  if (params.stop.empty()) return std::nullopt;
  return stop_text.push(tokenizer->token_bytes(token, false));
}

Result<TokenId> Sampler::State::choose(std::span<float> logits) const {
  for (const auto& [token, bias] : params.logit_bias) {
    CHECK_LT(static_cast<size_t>(token), logits.size());
    logits[static_cast<size_t>(token)] += bias;
  }
  if (counts_tokens) counts.penalize(params, logits);
  if (params.temperature < kGreedyTemperature) {
    const TokenId token = cpu::argmax(isa, logits);
    const float largest = logits[static_cast<size_t>(token)];
    if (!(largest > -std::numeric_limits<float>::infinity()) ||
        largest == std::numeric_limits<float>::infinity())
      return make_error(ErrorCode::internal, "the largest logit is {}", largest);
    return token;
  }
  const double uniform =
      philox_uniform(params.seed, sequence_index, static_cast<uint64_t>(position));
  return draw_token(isa, params, uniform, logits);
}

bool Sampler::State::ends_turn(TokenId token) const {
  const auto& stops = params.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) return true;
  if (params.ignore_eos || tokenizer == nullptr) return false;
  const auto& ends = tokenizer->end_tokens();
  return std::binary_search(ends.begin(), ends.end(), token);
}

Result<Sampler> Sampler::create(const graph::SequenceDescriptor& descriptor,
                                const Tokenizer* tokenizer, cpu::Isa isa) {
  const int32_t vocabulary =
      tokenizer != nullptr ? tokenizer->vocabulary_size() : std::numeric_limits<int32_t>::max();
  RETURN_IF_ERROR(graph::validate(descriptor.sampling, vocabulary));
  RETURN_IF_ERROR(check_tokens("the prompt", descriptor.prompt, vocabulary));
  RETURN_IF_ERROR(check_tokens("the generated part", descriptor.generated, vocabulary));
  if (tokenizer == nullptr && !descriptor.sampling.stop.empty())
    return make_error(ErrorCode::invalid_argument,
                      "stop strings need a vocabulary that has text; use stop_token_ids");
  if (descriptor.generated.size() >= static_cast<size_t>(descriptor.sampling.max_new_tokens))
    return make_error(ErrorCode::invalid_argument,
                      "{} tokens are generated already, max_new_tokens is {}",
                      descriptor.generated.size(), descriptor.sampling.max_new_tokens);
  auto state = std::make_unique<State>(descriptor, tokenizer, isa);
  if (state->counts_tokens)
    for (const TokenId token : descriptor.prompt) state->counts.add_prompt(token);
  state->position = static_cast<int32_t>(descriptor.prompt.size());
  for (const TokenId token : descriptor.generated) static_cast<void>(state->take(token));
  return Sampler(std::move(state));
}

graph::TokenResult Sampler::sample(int32_t position, std::span<float> logits) {
  State& state = *state_;
  CHECK_EQ(position, state.position);
  CHECK(!logits.empty());
  graph::TokenResult result;
  result.id = state.id;
  result.position = position;
  std::optional<Logprobs> logprobs;
  if (state.params.num_top_logprobs >= 0) logprobs.emplace(state.isa, logits);

  const Result<TokenId> chosen = state.choose(logits);
  if (!chosen.ok() || (logprobs && !logprobs->valid())) {
    result.finish = FinishReason::failed;
    return result;
  }
  result.token = *chosen;
  if (logprobs) {
    result.logprob = logprobs->of(result.token);
    result.top_logprobs = logprobs->top(static_cast<size_t>(state.params.num_top_logprobs));
  }
  const std::optional<int64_t> text_bytes = state.take(result.token);
  if (state.ends_turn(result.token)) {
    result.finish = FinishReason::stop;
  } else if (text_bytes) {
    result.finish = FinishReason::stop;
    result.text_bytes = *text_bytes;
  } else if (state.num_generated >= state.params.max_new_tokens) {
    result.finish = FinishReason::length;
  }
  return result;
}

Sampler::Sampler(std::unique_ptr<State> state) : state_(std::move(state)) {}
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;
Sampler::~Sampler() = default;

}  // namespace chainpump::models
