#include "transport/latency_histogram.h"

#include <algorithm>
#include <bit>

namespace chainpump::transport {
namespace {

// Bucket b = 4e + q holds [64 (4 + q) 2^e / 4, 64 (5 + q) 2^e / 4) ns.
int bucket_of(uint64_t ns) {
  const uint64_t units = std::max<uint64_t>(ns / 16, 4);
  const int e = std::bit_width(units) - 3;
  return 4 * e + static_cast<int>(units >> e & 3);
}

double upper_us(int bucket) {
  const int e = bucket / 4;
  const int q = bucket % 4;
  return static_cast<double>(uint64_t{16} * static_cast<uint64_t>(5 + q) << e) * 1e-3;
}

}  // namespace

void LatencyHistogram::add(Duration latency) {
  if (latency.count() < 0) return;
  const int bucket = std::min(bucket_of(static_cast<uint64_t>(latency.count())), kNumBuckets - 1);
  ++counts_[static_cast<size_t>(bucket)];
  if (++total_ < kWindow) return;
  total_ = 0;
  for (uint32_t& count : counts_) total_ += count /= 2;
}

double LatencyHistogram::quantile_us(double quantile) const {
  if (total_ == 0) return 0;
  const double rank = quantile * total_;
  double seen = 0;
  for (int b = 0; b < kNumBuckets; ++b) {
    seen += counts_[static_cast<size_t>(b)];
    if (seen > 0 && seen >= rank) return upper_us(b);
  }
  return upper_us(kNumBuckets - 1);
}

}  // namespace chainpump::transport
