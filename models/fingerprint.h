// A 64-bit fingerprint of a weights file that every rank computes alike without reading the
// weights: the whole header (metadata, tokenizer, tensor table), the file's size, and 64 bytes from
// the middle of 16 tensors spread over the file. It tells versions apart; it proves nothing against
// somebody who forges a file. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "models/gguf/gguf.h"

namespace chainpump::models {

/// `bytes`: the whole file that `file` was parsed from.
uint64_t model_fingerprint(std::span<const std::byte> bytes, const GgufFile& file);

}  // namespace chainpump::models
