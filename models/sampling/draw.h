// Drawing a token from logits by temperature, top-k, top-p and min-p, without sorting the
// vocabulary: tokens are visited in one fixed order (descending logit, ties by token id) and only
// as far as the draw needs. A pure function of its arguments; any thread.
#pragma once

#include <span>

#include "base/ids.h"
#include "base/result.h"
#include "graph/sampling_params.h"
#include "kernels/cpu/isa.h"

namespace chainpump::models {

/// Below this a temperature means greedy: the softmax would be one-hot to the last bit.
inline constexpr float kGreedyTemperature = 1e-5f;

/// The token at which the cumulative weight, in the fixed order, reaches `uniform` (in (0, 1)) of
/// the weight that is kept. Weight: exp((logit - largest) / temperature). Kept, one after another
/// (the order of operations of transformers):
///   top-k  the first k in the order (exactly k: ties at the edge go by token id);
///   top-p  of those the shortest beginning whose weight is at least top_p of theirs;
///   min-p  of those the ones of at least min_p times the first one's weight.
/// `logits` are overwritten. params.temperature must not be greedy. internal if the largest logit
/// or the sum of all weights, where it is needed, is not finite; a NaN is never drawn.
Result<TokenId> draw_token(kernels::cpu::Isa isa, const graph::SamplingParams& params,
                           double uniform, std::span<float> logits);

}  // namespace chainpump::models
