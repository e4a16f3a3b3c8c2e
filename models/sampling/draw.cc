#include "models/sampling/draw.h"

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/cpu/math.h"
#include "models/sampling/descending.h"
#include "models/sampling/weighted_order.h"

namespace chainpump::models {
namespace {

namespace cpu = kernels::cpu;

constexpr float kNoWeight = -104.0f;  // exp_f32 gives 0 at and below

struct WeightedToken {
  TokenId token = 0;
  double weight = 0;
};

/// The first token at which the running sum reaches `target`. The last one if rounding keeps the
/// sum below it.
class Walk {
 public:
  explicit Walk(double target) : target_(target) {}
  bool reaches(const WeightedToken& next) {
    token_ = next.token;
    sum_ += next.weight;
    return sum_ >= target_;
  }
  TokenId token() const { return token_; }

 private:
  double target_;
  double sum_ = 0;
  TokenId token_ = 0;
};

WeightedToken weighted(const RankedToken& ranked) {
  return {ranked.token, static_cast<double>(cpu::exp_f32(ranked.value))};
}

/// logits -> (logit - largest) / temperature, so that the largest is 0.
Status scale(cpu::Isa isa, float temperature, std::span<float> logits) {
  const float largest = logits[static_cast<size_t>(cpu::argmax(isa, logits))];
  if (!std::isfinite(largest))
    return make_error(ErrorCode::internal, "the largest logit is {}", largest);
  cpu::shift_scale(isa, logits, largest, 1.0f / temperature);
  return ok_status();
}

/// The weight of all tokens together, by the vector kernel.
double mass_of(cpu::Isa isa, std::span<const float> scaled) {
  return cpu::exp_f64(cpu::log_sum_exp(isa, scaled));
}

double mass_of(const std::vector<WeightedToken>& tokens) {
  double mass = 0;
  for (const WeightedToken& token : tokens) mass += token.weight;
  return mass;
}

std::vector<WeightedToken> first_k(cpu::Isa isa, size_t k, std::span<const float> scaled) {
  std::vector<WeightedToken> tokens;
  for (const RankedToken& ranked : first_in_order(isa, scaled, k))
    if (ranked.value > kNoWeight) tokens.push_back(weighted(ranked));
  return tokens;
}

/// What top-k, top-p and min-p leave, in the order.
std::vector<WeightedToken> kept_tokens(cpu::Isa isa, const graph::SamplingParams& params,
                                       std::span<const float> scaled) {
  DescendingTokens all(isa, scaled, kNoWeight);
  std::vector<WeightedToken> kept;
  if (params.top_k > 0) kept = first_k(isa, static_cast<size_t>(params.top_k), scaled);
  double mass_max = std::numeric_limits<double>::infinity();
  if (params.top_p < 1)
    mass_max = params.top_p * (params.top_k > 0 ? mass_of(kept) : mass_of(isa, scaled));
  const double least = params.min_p;  // the first one's weight is 1
  double mass = 0;
  for (size_t n = 0;; ++n) {
    if (n == kept.size()) {
      const auto next = params.top_k > 0 ? std::nullopt : all.next();
      if (!next) return kept;
      kept.push_back(weighted(*next));
    }
    if (kept[n].weight < least) {
      kept.resize(n);
      return kept;
    }
    mass += kept[n].weight;
    if (mass >= mass_max) {
      kept.resize(n + 1);
      return kept;
    }
  }
}

}  // namespace

Result<TokenId> draw_token(cpu::Isa isa, const graph::SamplingParams& params, double uniform,
                           std::span<float> logits) {
  RETURN_IF_ERROR(scale(isa, params.temperature, logits));
  if (params.top_k == 0 && params.min_p == 0) {
    const WeightedOrder order(isa, logits);
    const double mass = order.mass();
    if (!std::isfinite(mass))
      return make_error(ErrorCode::internal, "the weights' sum is {}", mass);
    const double kept = params.top_p < 1 ? order.reach(params.top_p * mass).weight : mass;
    return order.reach(uniform * kept).token;
  }
  const std::vector<WeightedToken> kept = kept_tokens(isa, params, logits);
  Walk walk(uniform * mass_of(kept));
  for (const WeightedToken& token : kept)
    if (walk.reaches(token)) break;
  return walk.token();
}

}  // namespace chainpump::models
