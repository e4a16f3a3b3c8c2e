// What a peer may put into a frame's metadata section: whatever decodes must encode to the same
// bytes again, and nothing else may happen than an error.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "graph/microbatch.h"

namespace {

using chainpump::graph::MicrobatchLimits;

constexpr MicrobatchLimits kLimits{.max_tokens = 64,
                                   .max_sequences = 8,
                                   .context_tokens = 128,
                                   .num_kv_blocks = 32,
                                   .vocabulary_size = 1000};

template <typename T>
void check_same(const chainpump::Result<T>& decoded, std::span<const std::byte> bytes) {
  if (!decoded.ok()) return;
  std::vector<std::byte> again;
  encode(*decoded, again);
  CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check_same(chainpump::graph::decode_microbatch(bytes, kLimits), bytes);
  check_same(chainpump::graph::decode_step_result(bytes, kLimits), bytes);
  return 0;
}
