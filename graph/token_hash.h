// The hash of a chain of token blocks: of one block's tokens, seeded by the hash of what is before
// it, or by the tenant's salt. The KV cache and the router find equal prefixes by it. Not
// cryptographic: whoever must be sure compares the tokens. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"

namespace chainpump::graph {

uint64_t chained_hash(uint64_t before, std::span<const TokenId> tokens);

}  // namespace chainpump::graph
