// A 64-bit fingerprint of a weights file that every rank computes alike without reading the
// weights: the whole header (metadata, tokenizer, tensor table), the file's size, and 64 bytes from
// the middle of 16 tensors spread over the file. It tells versions apart; it proves nothing against
// somebody who forges a file. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "models/gguf/gguf.h"

namespace chainpump::models {

/// Everything before the first tensor's data. `bytes`: the whole file that `file` was parsed from.
uint64_t head_bytes(std::span<const std::byte> bytes, const GgufFile& file);
/// What is read of tensors.
std::vector<std::span<const std::byte>> fingerprint_samples(const GgufFile& file);

uint64_t model_fingerprint(std::span<const std::byte> bytes, const GgufFile& file);

}  // namespace chainpump::models
