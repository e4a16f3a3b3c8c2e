#include "models/sampling/weighted_order.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "models/sampling/descending.h"

namespace chainpump::models {
namespace {

namespace cpu = kernels::cpu;
using Sums = std::array<double, cpu::kNumBands>;

constexpr float kNoWeight = -104.0f;  // exp_f32 gives 0 at and below
constexpr size_t kFew = 256;          // tokens that are sorted rather than divided
constexpr size_t kScanTokens = 2048;  // whose indices fit the stack and the first cache
constexpr int kLevels = 3;            // bands of 2^-2, 2^-9, 2^-16: their borders are exact in f32

/// Bands of equal width below `top`, the width a power of two.
struct Scale {
  float top = 0.0f;
  float bands_per_unit = 4.0f;
  bool is_whole = true;  // of the first level, whose last band has all that is further down

  bool is_rest(size_t band) const { return is_whole && band == cpu::kNumBands - 1; }
  float upper(size_t band) const { return top - static_cast<float>(band) / bands_per_unit; }
  float lower(size_t band) const { return is_rest(band) ? kNoWeight : upper(band + 1); }
  Scale within(size_t band) const {
    return {upper(band), is_rest(band) ? 1.0f : bands_per_unit * cpu::kNumBands, false};
  }
};

/// The band in which the cumulative sum reaches `target`, else the last one that has any weight;
/// adds the sums of those before it to `before`.
size_t find_band(const Sums& sums, double target, double& before) {
  size_t found = 0;
  double running = before;
  for (size_t b = 0; b < sums.size(); ++b) {
    if (sums[b] == 0) continue;
    found = b;
    before = running;
    running += sums[b];
    if (running >= target) break;
  }
  return found;
}

/// Those of `all` in (above, up_to], in their order.
std::vector<RankedToken> members(cpu::Isa isa, std::span<const float> values,
                                 const std::vector<RankedToken>* all, float above, float up_to) {
  std::array<int32_t, kScanTokens> indices;
  std::vector<RankedToken> found;
  for (size_t begin = 0; begin < values.size(); begin += kScanTokens) {
    const auto part = values.subspan(begin, std::min(kScanTokens, values.size() - begin));
    const size_t count = cpu::select(isa, part, above, up_to, indices);
    const size_t old = found.size();
    found.resize(old + count);
    for (size_t i = 0; i < count; ++i) {
      const size_t at = begin + static_cast<size_t>(indices[i]);
      found[old + i] =
          all != nullptr ? (*all)[at] : RankedToken{values[at], static_cast<TokenId>(at)};
    }
  }
  return found;
}

bool all_equal(const std::vector<RankedToken>& tokens) {
  return std::all_of(tokens.begin(), tokens.end(),
                     [&](const RankedToken& t) { return t.value == tokens.front().value; });
}

WeightedOrder::Reach walk(std::vector<RankedToken> tokens, double before, double target) {
  if (!all_equal(tokens)) {  // by id they are in order already
    std::sort(tokens.begin(), tokens.end(), [](const RankedToken& a, const RankedToken& b) {
      return a.value != b.value ? a.value > b.value : a.token < b.token;
    });
  }
  WeightedOrder::Reach reach{tokens.front().token, before};
  for (const RankedToken& next : tokens) {
    reach.token = next.token;
    reach.weight += static_cast<double>(cpu::exp_f32(next.value));
    if (reach.weight >= target) break;
  }
  return reach;
}

}  // namespace

WeightedOrder::WeightedOrder(cpu::Isa isa, std::span<const float> values)
    : isa_(isa), values_(values) {
  const Scale scale;
  cpu::band_sums(isa, values, scale.top, scale.bands_per_unit, sums_);
  for (const double sum : sums_) mass_ += sum;
}

WeightedOrder::Reach WeightedOrder::reach(double target) const {
  Scale scale;
  double before = 0;
  size_t band = find_band(sums_, target, before);
  std::vector<RankedToken> tokens =
      members(isa_, values_, nullptr, scale.lower(band), scale.upper(band));
  CHECK(!tokens.empty());
  for (int level = 1; level < kLevels && tokens.size() > kFew && !all_equal(tokens); ++level) {
    std::vector<float> values;
    values.reserve(tokens.size());
    for (const RankedToken& token : tokens) values.push_back(token.value);
    scale = scale.within(band);
    Sums sums;
    cpu::band_sums(isa_, values, scale.top, scale.bands_per_unit, sums);
    band = find_band(sums, target, before);
    tokens = members(isa_, values, &tokens, scale.lower(band), scale.upper(band));
  }
  return walk(std::move(tokens), before, target);
}

}  // namespace chainpump::models
