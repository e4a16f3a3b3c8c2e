// The sampler's meaning, spelled out in double precision with a full sort: what the real one is
// compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "base/philox.h"
#include "graph/microbatch.h"

namespace chainpump::models::reference {

/// The kept distribution in the order (descending logit, ties by id), weights summing to 1.
inline std::vector<std::pair<TokenId, double>> distribution(const graph::SequenceDescriptor& d,
                                                            const std::vector<float>& logits) {
  const graph::SamplingParams& p = d.sampling;
  std::vector<double> x(logits.begin(), logits.end());
  for (const auto& [token, bias] : p.logit_bias) x[static_cast<size_t>(token)] += bias;
  std::map<TokenId, int> seen;
  for (const TokenId t : d.prompt) seen.emplace(t, 0);
  for (const TokenId t : d.generated) ++seen[t];
  for (const auto& [token, count] : seen) {
    double& v = x[static_cast<size_t>(token)];
    v = v > 0 ? v / p.repetition_penalty : v * p.repetition_penalty;
    v -= p.frequency_penalty * count + (count > 0 ? p.presence_penalty : 0.0f);
  }
  std::vector<TokenId> order(x.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<TokenId>(i);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)];
  });
  if (p.temperature == 0) return {{order[0], 1.0}};
  std::vector<std::pair<TokenId, double>> kept;
  const double largest = x[static_cast<size_t>(order[0])];
  for (const TokenId t : order)
    kept.emplace_back(t, std::exp((x[static_cast<size_t>(t)] - largest) / p.temperature));
  if (p.top_k > 0 && kept.size() > static_cast<size_t>(p.top_k))
    kept.resize(static_cast<size_t>(p.top_k));
  const auto mass = [&] {
    double sum = 0;
    for (const auto& [t, w] : kept) sum += w;
    return sum;
  };
  const double all = mass();
  double sum = 0;
  for (size_t n = 0; n < kept.size() && p.top_p < 1; ++n) {
    sum += kept[n].second;
    if (sum >= p.top_p * all) kept.resize(n + 1);
  }
  while (kept.back().second < p.min_p) kept.pop_back();
  const double total = mass();
  for (auto& [t, w] : kept) w /= total;
  return kept;
}

/// The tokens that the draw may give: one, or two where the uniform number lies within `slack` of
/// the border between them.
inline std::vector<TokenId> allowed(const graph::SequenceDescriptor& d,
                                    const std::vector<float>& logits, double slack) {
  const auto position = static_cast<uint64_t>(d.prompt.size() + d.generated.size());
  const double u = philox_uniform(d.sampling.seed, d.sequence_index, position);
  std::vector<TokenId> out;
  double sum = 0;
  for (const auto& [token, weight] : distribution(d, logits)) {
    if (sum + weight >= u - slack && sum <= u + slack) out.push_back(token);
    sum += weight;
  }
  return out;
}

}  // namespace chainpump::models::reference
