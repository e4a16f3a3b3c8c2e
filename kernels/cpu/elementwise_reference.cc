// Row-wise operations in plain C++. Sums over a row run in 16 lanes (column modulo 16), joined by a
// fixed tree, so that vectors of 8 or 16 give the same bits.
#include <cmath>

#include "kernels/cpu/bands.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/math_scalar.h"
#include "kernels/cpu/reference.h"

namespace chainpump::kernels::cpu::reference {

void rms_norm_row(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  float lanes[16] = {};
  for (int64_t c = 0; c < cols; ++c) lanes[c % 16] = std::fma(x[c], x[c], lanes[c % 16]);
  const float mean = tree_sum_16(lanes) / static_cast<float>(cols);
  const float inverse = 1.0f / std::sqrt(mean + eps);
  for (int64_t c = 0; c < cols; ++c) out[c] = x[c] * inverse * weight[c];
}

void rope_turns(int32_t position, const float* frequencies, int64_t count, float magnitude,
                float* cos, float* sin) {
  for (int64_t i = 0; i < count; ++i) {
    // The angle is rounded to f32, as the model's own implementations do.
    const float angle = static_cast<float>(position) * frequencies[i];
    const SinCos turn = sin_cos(static_cast<double>(angle));
    cos[i] = turn.cos * magnitude;
    sin[i] = turn.sin * magnitude;
  }
}

void rope_turn(float* a, float* b, int64_t step, const float* cos, const float* sin,
               int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float first = a[i * step];
    const float second = b[i * step];
    a[i * step] = first * cos[i] - second * sin[i];
    b[i * step] = first * sin[i] + second * cos[i];
  }
}

void silu_mul(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + exp_scalar(-gate[i])) * up[i];
}

int64_t argmax(const float* values, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i)
    if (values[i] > values[best] || (std::isnan(values[best]) && !std::isnan(values[i]))) best = i;
  return best;
}

void shift_scale(float* values, int64_t count, float shift, float factor) {
  for (int64_t i = 0; i < count; ++i) values[i] = (values[i] - shift) * factor;
}

double sum_exp(const float* values, int64_t count, float largest) {
  double lanes[16] = {};
  for (int64_t i = 0; i < count; ++i)
    lanes[i % 16] += static_cast<double>(exp_scalar(values[i] - largest));
  return tree_sum_16(lanes);
}

void band_sums(const float* values, int64_t count, float top, float bands_per_unit, double* lanes) {
  for (int64_t i = 0; i < count; ++i) {
    const float below = (top - values[i]) * bands_per_unit;
    const int band = below < kNumBands - 1 ? static_cast<int>(below) : kNumBands - 1;
    lanes[i % kBandLanes * kNumBands + band] += static_cast<double>(exp_scalar(values[i]));
  }
}

int64_t select(const float* values, int64_t count, float above, float up_to, int32_t* indices) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i)
    if (values[i] > above && values[i] <= up_to) indices[found++] = static_cast<int32_t>(i);
  return found;
}

}  // namespace chainpump::kernels::cpu::reference
