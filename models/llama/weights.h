// The weights of one stage: packed for the kernels, nothing of the other stages touched. The
// embedding table stays in the mapped file; its rows are decoded as tokens ask for them.
// Immutable after load; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/cpu/matmul.h"
#include "models/llama/tensors.h"
#include "models/panel_cache/panel_cache.h"
#include "models/stage_executor.h"

namespace chainpump::models {

struct Projection {
  kernels::cpu::PackedMatrix matrix;
  std::vector<float> bias;  // [rows] or empty
};

struct LayerWeights {
  std::vector<float> attention_norm;  // [hidden]
  Projection q;
  Projection k;
  Projection v;
  Projection o;
  std::vector<float> ffn_norm;  // [hidden]
  Projection gate;
  Projection up;
  Projection down;
};

struct StageWeights {
  const GgufTensor* embedding = nullptr;  // first stage only; its bytes are the mapped file's
  std::vector<LayerWeights> layers;       // [layer_begin, layer_end)
  std::vector<float> output_norm;         // last stage only
  std::optional<kernels::cpu::PackedMatrix> head;  // last stage only
  int64_t bytes_read = 0;                          // of the model file, while loading
  int64_t bytes_held = 0;                          // packed
};

/// Takes the packed tensors of `spec` from the cache, or reads and packs them. They must lie in a
/// mapped file: its pages are asked for ahead and given back after packing.
StageWeights load_stage_weights(const LlamaTensors& tensors, const StageSpec& spec,
                                kernels::cpu::Isa isa, kernels::cpu::Team& team, PanelCache& cache,
                                const LoadProgress& progress);

}  // namespace chainpump::models
