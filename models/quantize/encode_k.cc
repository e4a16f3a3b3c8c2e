// Superblocks of 256 values with scales of two levels: an f16 step for all, small integers for each
// 32 (Q4_K, Q5_K: step and minimum) or 16 (Q6_K: step). The search, each part of which can only
// lower the squared error:
//   1. every sub-block by itself: start from several steps, then alternate between rounding the
//      values to the nearest quant and solving for the step (and minimum) by least squares;
//   2. the f16 steps from the largest of these; each sub-block takes the best of the small integers
//      next to its own;
//   3. the f16 steps once more, by least squares over the whole superblock, and the quants anew.
// Values are scaled by a power of two to at most 1 first, so that no square over- or underflows.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "models/quantize/encode.h"

namespace chainpump::models {
namespace {

constexpr int kSuper = 256;
constexpr int kSub = 32;  // of Q4_K and Q5_K
constexpr int kSubs = kSuper / kSub;
constexpr int kSub6 = 16;  // of Q6_K
constexpr int kSubs6 = kSuper / kSub6;
constexpr int kTopScale = 63;  // 6 bits
constexpr int kRefinements = 2;

// Four values at a time: a vector type of the compilers', which every machine has in some form, so
// that the order of additions is the same everywhere.
using Lanes = float __attribute__((vector_size(16)));
constexpr int kLanes = 4;

Lanes load(const float* x) {
  Lanes lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}
Lanes all(float value) { return Lanes{value, value, value, value}; }
float sum_of(const Lanes& lanes) { return lanes[0] + lanes[1] + (lanes[2] + lanes[3]); }

// To the nearest integer, ties to even, within [low, high] (both far below 2^22).
Lanes nearest(const Lanes& value, float low, float high) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its last mantissa bit counts ones
  const Lanes raised = value > low ? value : all(low);  // NaN, from an infinite f16 step, too
  const Lanes clamped = raised > high ? all(high) : raised;
  return clamped + kMagic - kMagic;
}
int nearest_int(float value, int low, int high) {
  return static_cast<int>(
      nearest(all(value), static_cast<float>(low), static_cast<float>(high))[0]);
}

// 256 values scaled to at most 1 in magnitude.
struct Scaled {
  float x[kSuper];
  int exponent = 0;  // the values are x * 2^exponent

  explicit Scaled(const float* values) {
    float largest = 0.0f;
    for (int i = 0; i < kSuper; ++i) largest = std::max(largest, std::fabs(values[i]));
    std::frexp(largest, &exponent);
    for (int i = 0; i < kSuper; ++i) x[i] = std::ldexp(values[i], -exponent);
  }
  // `step` of the scaled values as the file's f16, and what that says.
  uint16_t to_half(float step) const { return float_to_f16(std::ldexp(step, exponent)); }
  float from_half(uint16_t half) const { return std::ldexp(f16_to_float(half), -exponent); }
};

// -- Q4_K and Q5_K: x is about step * q - minimum, step and minimum >= 0 --------------------------
struct Affine {
  float step = 0.0f;
  float minimum = 0.0f;
};

// The squared error over one sub-block when each value takes its nearest quant.
float affine_error(const float* x, const Affine& fit, float top) {
  const float inverse = fit.step > 0.0f ? 1.0f / fit.step : 0.0f;
  Lanes errors = {};
  for (int i = 0; i < kSub; i += kLanes) {
    const Lanes values = load(x + i);
    const Lanes q = nearest((values + fit.minimum) * inverse, 0.0f, top);
    const Lanes off = fit.step * q - fit.minimum - values;
    errors += off * off;
  }
  return sum_of(errors);
}

void affine_quants(const float* x, const Affine& fit, float top, uint8_t* quants) {
  const float inverse = fit.step > 0.0f ? 1.0f / fit.step : 0.0f;
  for (int i = 0; i < kSub; i += kLanes) {
    const Lanes q = nearest((load(x + i) + fit.minimum) * inverse, 0.0f, top);
    for (int l = 0; l < kLanes; ++l) quants[i + l] = static_cast<uint8_t>(q[l]);
  }
}

// Step and minimum of least squared error for the quants that `fit` gives.
Affine solve_affine(const float* x, const Affine& fit, float top) {
  const float inverse = fit.step > 0.0f ? 1.0f / fit.step : 0.0f;
  Lanes xs = {}, qs = {}, qqs = {}, xqs = {};
  for (int i = 0; i < kSub; i += kLanes) {
    const Lanes values = load(x + i);
    const Lanes q = nearest((values + fit.minimum) * inverse, 0.0f, top);
    xs += values;
    qs += q;
    qqs += q * q;
    xqs += values * q;
  }
  const float sum_x = sum_of(xs);
  const float sum_q = sum_of(qs);
  const float sum_qq = sum_of(qqs);
  const float sum_xq = sum_of(xqs);
  const float determinant = kSub * sum_qq - sum_q * sum_q;
  if (!(determinant > 0.0f)) return fit;
  const Affine free{(kSub * sum_xq - sum_x * sum_q) / determinant,
                    (sum_q * sum_xq - sum_qq * sum_x) / determinant};
  if (free.minimum >= 0.0f && free.step >= 0.0f) return free;
  return {std::max(0.0f, sum_xq / sum_qq), 0.0f};  // the format holds no negative minimum
}

Affine fit_affine(const float* x, float top) {
  const auto [smallest, largest] = std::minmax_element(x, x + kSub);
  const float low = std::min(0.0f, *smallest);
  const float range = *largest - low;
  Affine best{0.0f, -low};
  if (!(range > 0.0f)) return best;
  float least = affine_error(x, best, top);
  // Steps that use fewer than all quants, and such as cut the extremes off.
  for (float extra = -1.2f; extra < 2.2f; extra += 0.3f) {
    Affine fit{range / (top + extra), -low};
    for (int i = 0; i < kRefinements; ++i) fit = solve_affine(x, fit, top);
    const float error = affine_error(x, fit, top);
    if (error < least) {
      least = error;
      best = fit;
    }
  }
  return best;
}

struct Super45 {
  uint16_t d = 0;
  uint16_t dmin = 0;
  int scales[kSubs] = {};
  int minimums[kSubs] = {};
};

// Step 2 of the search: small integers for the fits under the f16 steps of `super`. Returns the
// squared error.
float choose_scales(const Scaled& scaled, const Affine (&fits)[kSubs], float top, Super45& super) {
  const float d = scaled.from_half(super.d);
  const float dmin = scaled.from_half(super.dmin);
  float total = 0.0f;
  for (int b = 0; b < kSubs; ++b) {
    const int scale = d > 0.0f ? nearest_int(fits[b].step / d, 0, kTopScale) : 0;
    const int minimum = dmin > 0.0f ? nearest_int(fits[b].minimum / dmin, 0, kTopScale) : 0;
    float least = INFINITY;
    for (int s = std::max(0, scale - 1); s <= std::min(kTopScale, scale + 1); ++s)
      for (int m = std::max(0, minimum - 1); m <= std::min(kTopScale, minimum + 1); ++m) {
        const Affine fit{d * static_cast<float>(s), dmin * static_cast<float>(m)};
        const float error = affine_error(scaled.x + kSub * b, fit, top);
        if (error >= least) continue;
        least = error;
        super.scales[b] = s;
        super.minimums[b] = m;
      }
    total += least;
  }
  return total;
}

Affine affine_of(const Scaled& scaled, const Super45& super, int b) {
  return {scaled.from_half(super.d) * static_cast<float>(super.scales[b]),
          scaled.from_half(super.dmin) * static_cast<float>(super.minimums[b])};
}

// The f16 steps of least squared error for the quants and small integers of `super`.
Super45 solve_steps(const Scaled& scaled, const Super45& super, float top) {
  float aa = 0.0f, ab = 0.0f, bb = 0.0f, ax = 0.0f, bx = 0.0f;
  for (int b = 0; b < kSubs; ++b) {
    uint8_t quants[kSub];
    affine_quants(scaled.x + kSub * b, affine_of(scaled, super, b), top, quants);
    const auto minimum = static_cast<float>(super.minimums[b]);
    for (int i = 0; i < kSub; ++i) {
      const float a = static_cast<float>(super.scales[b] * quants[i]);
      aa += a * a;
      ab += a * minimum;
      bb += minimum * minimum;
      ax += a * scaled.x[kSub * b + i];
      bx += minimum * scaled.x[kSub * b + i];
    }
  }
  Super45 solved = super;
  const float determinant = aa * bb - ab * ab;
  if (determinant > 1e-6f * aa * bb) {
    solved.d = scaled.to_half(std::max(0.0f, (bb * ax - ab * bx) / determinant));
    solved.dmin = scaled.to_half(std::max(0.0f, (ab * ax - aa * bx) / determinant));
  } else if (bb == 0.0f && aa > 0.0f) {
    solved.d = scaled.to_half(std::max(0.0f, ax / aa));
  }
  return solved;
}

void store_k45(DType type, const Super45& super, const uint8_t (&q)[kSuper], std::byte* out) {
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  std::memcpy(bytes, &super.d, 2);
  std::memcpy(bytes + 2, &super.dmin, 2);
  uint8_t* packed = bytes + 4;  // 12 bytes of 6-bit scales and minimums
  for (int b = 0; b < 4; ++b) {
    packed[b] = static_cast<uint8_t>(super.scales[b] | super.scales[b + 4] >> 4 << 6);
    packed[b + 4] = static_cast<uint8_t>(super.minimums[b] | super.minimums[b + 4] >> 4 << 6);
    packed[b + 8] =
        static_cast<uint8_t>((super.scales[b + 4] & 0xf) | (super.minimums[b + 4] & 0xf) << 4);
  }
  if (type == DType::q5_k)
    for (int j = 0; j < kSub; ++j) {
      int high = 0;
      for (int b = 0; b < kSubs; ++b) high |= q[kSub * b + j] >> 4 << b;
      bytes[16 + j] = static_cast<uint8_t>(high);
    }
  uint8_t* nibbles = bytes + (type == DType::q5_k ? 48 : 16);
  for (int b = 0; b < kSubs; b += 2)
    for (int j = 0; j < kSub; ++j)
      nibbles[kSub / 2 * b + j] =
          static_cast<uint8_t>((q[kSub * b + j] & 0xf) | (q[kSub * (b + 1) + j] & 0xf) << 4);
}

// -- Q6_K: x is about step * q, q in [-32, 31], steps of either sign ------------------------------
float symmetric_error(const float* x, float step) {
  const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
  Lanes errors = {};
  for (int i = 0; i < kSub6; i += kLanes) {
    const Lanes values = load(x + i);
    const Lanes off = step * nearest(values * inverse, -32.0f, 31.0f) - values;
    errors += off * off;
  }
  return sum_of(errors);
}

void symmetric_quants(const float* x, float step, int (&quants)[kSub6]) {
  const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
  for (int i = 0; i < kSub6; ++i) quants[i] = nearest_int(x[i] * inverse, -32, 31);
}

float solve_symmetric(const float* x, float step) {
  const float inverse = 1.0f / step;
  Lanes qqs = {}, xqs = {};
  for (int i = 0; i < kSub6; i += kLanes) {
    const Lanes values = load(x + i);
    const Lanes q = nearest(values * inverse, -32.0f, 31.0f);
    qqs += q * q;
    xqs += values * q;
  }
  const float sum_qq = sum_of(qqs);
  const float sum_xq = sum_of(xqs);
  return sum_qq > 0.0f && sum_xq != 0.0f ? sum_xq / sum_qq : step;
}

float fit_symmetric(const float* x) {
  float extreme = 0.0f;
  for (int i = 0; i < kSub6; ++i)
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  if (std::fabs(extreme) < 1e-12f) return 0.0f;  // of values of about 1: nothing
  float best = 0.0f;
  float least = INFINITY;
  // The extreme as the lowest quant, or somewhat to either side of it.
  for (float reach = 30.2f; reach < 34.0f; reach += 0.3f) {
    float step = -extreme / reach;
    for (int i = 0; i < kRefinements; ++i) step = solve_symmetric(x, step);
    const float error = symmetric_error(x, step);
    if (error < least) {
      least = error;
      best = step;
    }
  }
  return best;
}

struct Super6 {
  uint16_t d = 0;
  int scales[kSubs6] = {};
};

float choose_scales6(const Scaled& scaled, const float (&fits)[kSubs6], Super6& super) {
  const float d = scaled.from_half(super.d);
  float total = 0.0f;
  for (int b = 0; b < kSubs6; ++b) {
    const int scale = d != 0.0f ? nearest_int(fits[b] / d, -128, 127) : 0;
    float least = INFINITY;
    for (int s = std::max(-128, scale - 1); s <= std::min(127, scale + 1); ++s) {
      const float error = symmetric_error(scaled.x + kSub6 * b, d * static_cast<float>(s));
      if (error >= least) continue;
      least = error;
      super.scales[b] = s;
    }
    total += least;
  }
  return total;
}

Super6 solve_step6(const Scaled& scaled, const Super6& super) {
  const float d = scaled.from_half(super.d);
  float aa = 0.0f;
  float ax = 0.0f;
  for (int b = 0; b < kSubs6; ++b) {
    int quants[kSub6];
    symmetric_quants(scaled.x + kSub6 * b, d * static_cast<float>(super.scales[b]), quants);
    for (int i = 0; i < kSub6; ++i) {
      const float a = static_cast<float>(super.scales[b] * quants[i]);
      aa += a * a;
      ax += a * scaled.x[kSub6 * b + i];
    }
  }
  Super6 solved = super;
  if (aa > 0.0f) solved.d = scaled.to_half(ax / aa);
  return solved;
}

void store_k6(const Super6& super, const uint8_t (&q)[kSuper], std::byte* out) {
  auto* bytes = reinterpret_cast<uint8_t*>(out);
  for (int half = 0; half < 2; ++half)
    for (int j = 0; j < 32; ++j) {
      const uint8_t* of = q + 128 * half + j;  // columns j, j + 32, j + 64, j + 96 of this half
      bytes[64 * half + j] = static_cast<uint8_t>((of[0] & 0xf) | (of[64] & 0xf) << 4);
      bytes[64 * half + 32 + j] = static_cast<uint8_t>((of[32] & 0xf) | (of[96] & 0xf) << 4);
      bytes[128 + 32 * half + j] =
          static_cast<uint8_t>(of[0] >> 4 | of[32] >> 4 << 2 | of[64] >> 4 << 4 | of[96] >> 4 << 6);
    }
  for (int b = 0; b < kSubs6; ++b) bytes[192 + b] = static_cast<uint8_t>(super.scales[b]);
  std::memcpy(bytes + 208, &super.d, 2);
}

}  // namespace

void encode_k45(DType type, const float* values, std::byte* out) {
  const float top = type == DType::q4_k ? 15.0f : 31.0f;
  const Scaled scaled(values);
  Affine fits[kSubs];
  Affine largest;
  for (int b = 0; b < kSubs; ++b) {
    fits[b] = fit_affine(scaled.x + kSub * b, top);
    largest.step = std::max(largest.step, fits[b].step);
    largest.minimum = std::max(largest.minimum, fits[b].minimum);
  }
  Super45 best;
  best.d = scaled.to_half(largest.step / kTopScale);
  best.dmin = scaled.to_half(largest.minimum / kTopScale);
  float least = choose_scales(scaled, fits, top, best);
  for (int i = 0; i < kRefinements; ++i) {
    Super45 next = solve_steps(scaled, best, top);
    const float error = choose_scales(scaled, fits, top, next);
    if (!(error < least)) break;
    least = error;
    best = next;
  }
  uint8_t quants[kSuper];
  for (int b = 0; b < kSubs; ++b)
    affine_quants(scaled.x + kSub * b, affine_of(scaled, best, b), top, quants + kSub * b);
  store_k45(type, best, quants, out);
}

void encode_k6(const float* values, std::byte* out) {
  const Scaled scaled(values);
  float fits[kSubs6];
  float largest = 0.0f;
  for (int b = 0; b < kSubs6; ++b) {
    fits[b] = fit_symmetric(scaled.x + kSub6 * b);
    if (std::fabs(fits[b]) > std::fabs(largest)) largest = fits[b];
  }
  Super6 best;
  best.d = scaled.to_half(largest / -128.0f);  // the largest takes the lowest small integer
  float least = choose_scales6(scaled, fits, best);
  for (int i = 0; i < kRefinements; ++i) {
    Super6 next = solve_step6(scaled, best);
    const float error = choose_scales6(scaled, fits, next);
    if (!(error < least)) break;
    least = error;
    best = next;
  }
  uint8_t quants[kSuper];
  for (int b = 0; b < kSubs6; ++b) {
    const float step = scaled.from_half(best.d) * static_cast<float>(best.scales[b]);
    int q[kSub6];
    symmetric_quants(scaled.x + kSub6 * b, step, q);
    for (int i = 0; i < kSub6; ++i) quants[kSub6 * b + i] = static_cast<uint8_t>(q[i] + 32);
  }
  store_k6(best, quants, out);
}

}  // namespace chainpump::models
