#include "graph/sampling_params.h"

#include <algorithm>

namespace chainpump::graph {
namespace {

Error out_of_range(std::string_view name, double value, std::string_view bounds) {
  return make_error(ErrorCode::invalid_argument, "{} is {}, must be {}", name, value, bounds);
}

/// Finite and within [low, high]; NaN fails every comparison.
bool within(double value, double low, double high) { return value >= low && value <= high; }

Status validate_token(std::string_view name, TokenId token, int32_t vocabulary_size) {
  if (token >= 0 && token < vocabulary_size) return ok_status();
  return make_error(ErrorCode::invalid_argument, "{} names token {}, the vocabulary has {}", name,
                    token, vocabulary_size);
}

Status validate_numbers(const SamplingParams& p) {
  if (!within(p.temperature, 0, kMaxTemperature))
    return out_of_range("temperature", p.temperature, "in [0, 100]");
  if (!within(p.top_p, 0, 1) || p.top_p == 0) return out_of_range("top_p", p.top_p, "in (0, 1]");
  if (!within(p.min_p, 0, 1) || p.min_p == 1) return out_of_range("min_p", p.min_p, "in [0, 1)");
  if (p.top_k < 0) return out_of_range("top_k", p.top_k, "at least 0 (0: off)");
  if (!within(p.repetition_penalty, 0.01, 100))
    return out_of_range("repetition_penalty", p.repetition_penalty, "in [0.01, 100]");
  if (!within(p.presence_penalty, -2, 2))
    return out_of_range("presence_penalty", p.presence_penalty, "in [-2, 2]");
  if (!within(p.frequency_penalty, -2, 2))
    return out_of_range("frequency_penalty", p.frequency_penalty, "in [-2, 2]");
  if (p.max_new_tokens < 1) return out_of_range("max_new_tokens", p.max_new_tokens, "at least 1");
  if (p.num_top_logprobs < -1 || p.num_top_logprobs > kMaxTopLogprobs)
    return out_of_range("num_top_logprobs", p.num_top_logprobs, "in [-1, 20]");
  return ok_status();
}

Status validate_logit_bias(const SamplingParams& p, int32_t vocabulary_size) {
  if (p.logit_bias.size() > kMaxLogitBiases)
    return out_of_range("the number of logit_bias entries",
                        static_cast<double>(p.logit_bias.size()), "at most 1024");
  std::vector<TokenId> tokens;
  for (const auto& [token, bias] : p.logit_bias) {
    RETURN_IF_ERROR(validate_token("logit_bias", token, vocabulary_size));
    if (!within(bias, -100, 100)) return out_of_range("logit_bias", bias, "in [-100, 100]");
    tokens.push_back(token);
  }
  std::sort(tokens.begin(), tokens.end());
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice != tokens.end())
    return make_error(ErrorCode::invalid_argument, "logit_bias names token {} twice", *twice);
  return ok_status();
}

Status validate_stops(const SamplingParams& p, int32_t vocabulary_size) {
  if (p.stop.size() > kMaxStopStrings)
    return out_of_range("the number of stop strings", static_cast<double>(p.stop.size()),
                        "at most 64");
  for (const std::string& text : p.stop) {
    if (text.empty() || text.size() > kMaxStopBytes)
      return out_of_range("the length of a stop string in bytes", static_cast<double>(text.size()),
                          "in [1, 1024]");
  }
  if (p.stop_token_ids.size() > kMaxStopTokens)
    return out_of_range("the number of stop_token_ids",
                        static_cast<double>(p.stop_token_ids.size()), "at most 1024");
  for (const TokenId token : p.stop_token_ids)
    RETURN_IF_ERROR(validate_token("stop_token_ids", token, vocabulary_size));
  return ok_status();
}

}  // namespace

Status validate(const SamplingParams& params, int32_t vocabulary_size) {
  RETURN_IF_ERROR(validate_numbers(params));
  RETURN_IF_ERROR(validate_logit_bias(params, vocabulary_size));
  return validate_stops(params, vocabulary_size);
}

}  // namespace chainpump::graph
