// A stage executor runs one stage's part of a model: any range of layers, with embedding and head
// as ends. It owns the stage's weights, its KV blocks and its threads. It knows nothing of links,
// actors or time. One thread (the one that made it) calls it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/beat.h"
#include "base/dtype.h"
#include "base/result.h"
#include "graph/microbatch.h"
#include "models/sequence_table.h"

namespace chainpump::models {

struct StageSpec {
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  bool has_embedding = false;
  bool has_head = false;
  int32_t num_threads = 1;
  std::vector<int> cores;        // to pin to, or empty
  bool spin_between_ops = true;  // false where threads outnumber cores
  DType kv_type = DType::f32;    // f32, bf16, f16, int8
  int32_t num_kv_blocks = 0;
  int32_t max_microbatch_tokens = 0;
  int32_t max_sequences = 0;
  int32_t context_tokens = 0;
  bool exact_activations = false;
  Beat* beat = nullptr;      // that its computing thread raises; outlives the executor; may be null
  std::string isa;           // CHAINPUMP_ISA, or empty
  std::string cache_folder;  // where repacked weights are kept between starts; empty: nowhere
};

struct ExecutorStats {
  int64_t weight_bytes_read = 0;    // of the model file, while loading
  int64_t weight_bytes_cached = 0;  // came packed from the cache instead
  int64_t weight_bytes_held = 0;
  int64_t kv_bytes = 0;
  std::string numerics_id;  // kernel variant, ISA, KV and activation types, model hash
  std::string cache_note;   // why the cache did not help, in words for the user; or empty
};

class StageExecutor {
 public:
  virtual ~StageExecutor() = default;

  virtual int32_t hidden_size() const = 0;
  virtual graph::MicrobatchLimits limits() const = 0;
  virtual ExecutorStats stats() const = 0;
  /// What is held of whom: of all that were described and not yet released.
  virtual const SequenceTable& sequences() const = 0;
  /// What a block holds of K and V in one of the stage's layers, numbered as the model's, in the
  /// kernels' own order: the same bytes mean the same to every stage of an equal numerics id. Empty
  /// where there is none.
  virtual std::span<std::byte> kv_block(int32_t layer, KvBlockId block) = 0;
  /// As SequenceTable's, when kv_block() has been given what those sequences hold.
  virtual Status take_over(std::span<const graph::StageHoldings::Held> sequences) = 0;

  /// Runs one microbatch. input: [num_tokens, hidden] f32 from the stage before (empty at the
  /// first). output: [num_tokens, hidden] f32 for the stage after (empty at the last). result: what
  /// was sampled or scored (only the last stage fills it; how long it took is its caller's to
  /// note). invalid_argument if the microbatch contradicts what this stage holds (unknown sequence,
  /// gap in positions, unwritten or shared block); the stage's state is then as before for the
  /// sequences concerned. Who computes is not its business: the microbatch's `stages` are not
  /// looked at.
  virtual Status run(const graph::Microbatch& microbatch, std::span<const float> input,
                     std::span<float> output, graph::StepResult& result) = 0;
};

/// Loading moves through bytes of this stage's weights; called from the loading thread.
using LoadProgress = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

/// Opens `model_path` (GGUF), reads only the tensors of `spec`, and packs them; or makes a stage
/// that sleeps, if the path names such a model (models/sleep/sleep_model.h).
/// bad_file naming the tensor, no_room, or unimplemented naming the architecture or type.
Result<std::unique_ptr<StageExecutor>> load_stage(const std::string& model_path,
                                                  const StageSpec& spec,
                                                  const LoadProgress& progress);

}  // namespace chainpump::models
