// Hashes of large contents, by a whole team: 128-bit XXH3 of each MiB, then of those in order.
// Tells contents apart by chance never; it proves nothing against somebody who makes two alike on
// purpose. Format: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md. Pure but for
// `fetch`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cpu/team.h"

namespace chainpump::models {

struct ContentHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const ContentHash&) const = default;
};

/// Of a small thing, in the calling thread.
ContentHash hash_of(std::span<const std::byte> bytes);

/// At most a MiB of one part.
struct ContentPiece {
  size_t part;
  size_t begin;  // in the part
  size_t bytes;
  uint64_t offset;  // in all parts one after the other
};

/// Of `parts` one after the other, cut into pieces where each part begins. `fetch`, where given, is
/// called by some member for each piece before it is hashed, to put it in place; once it has
/// returned false there is no hash. Called by the thread that made the team.
std::optional<ContentHash> hash_parts(kernels::cpu::Team& team,
                                      std::span<const std::span<const std::byte>> parts,
                                      const std::function<bool(const ContentPiece&)>& fetch = {});

}  // namespace chainpump::models
