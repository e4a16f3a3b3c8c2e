#include "graph/token_hash.h"

#include <xxhash.h>

namespace chainpump::graph {

uint64_t chained_hash(uint64_t before, std::span<const TokenId> tokens) {
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), before);
}

}  // namespace chainpump::graph
