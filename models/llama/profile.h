// What planning needs to know of a llama model, from its file's header alone. Pure; any thread.
#pragma once

#include "base/result.h"
#include "graph/model_profile.h"
#include "models/gguf/gguf.h"

namespace chainpump::models {

/// Shapes and bytes of every part; no weight is touched (but `rope_freqs.weight`, some 100 bytes).
/// With a tied head the table's bytes stand in both `embedding` and `head`: both ends read it.
/// bad_file naming the key or tensor, unimplemented naming the architecture or tensor.
Result<graph::ModelProfile> read_profile(const GgufFile& file);

}  // namespace chainpump::models
