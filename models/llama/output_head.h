// The last stage's end: final norm and head for the rows that need logits, then sampling or
// scoring. A row whose logits are not all finite numbers fails alone. Keeps each sequence's
// sampler, rebuilt from its descriptor whenever one comes. Rows go through in groups of bounded
// size, so that logits take bounded memory. One thread, but for consume(), which the whole team
// calls.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/unique_fd.h"
#include "graph/microbatch.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/team.h"
#include "models/lazy_memory.h"
#include "models/llama/config.h"
#include "models/llama/weights.h"
#include "models/sampling/sampler.h"

namespace chainpump::models {

class OutputHead {
 public:
  /// `tokenizer` may be null (a vocabulary without text) and outlives this.
  static Result<OutputHead> create(const LlamaConfig& config, kernels::cpu::Isa isa,
                                   const Tokenizer* tokenizer);

  /// Checks a microbatch against the samplers held, and makes those that its descriptors ask for.
  /// `num_held`: positions that the stage holds of each slice's sequence before it, as checked by
  /// SequenceTable. invalid_argument, or not_found for a score file; then nothing has changed.
  Status check(const graph::Microbatch& microbatch);
  /// Takes a checked microbatch in, and lists the rows that need logits.
  void apply(const graph::Microbatch& microbatch);

  /// Every member calls it with the residual stream x [num_tokens, hidden]; barriers inside.
  void consume(kernels::cpu::TeamMember& member, const StageWeights& weights, const float* x);
  /// What consume() made, in the order of slices and positions. internal if a score file could not
  /// be written.
  Status take_results(graph::StepResult& result);

 private:
  struct Sequence {
    std::optional<Sampler> sampler;
    int32_t next_position = 0;  // of the token that is sampled next
    graph::ScoreParams score;
    std::vector<TokenId> prompt;  // kept only for scoring
    UniqueFd full;                // score.full_path, or none
  };
  struct Row {
    int64_t index;  // in the microbatch
    Sequence* sequence;
    int32_t position;
    int32_t token_result;  // in results_.tokens, or -1
    int32_t score_result;  // in results_.scores, or -1
    bool finite = true;    // what its logits come from
  };

  OutputHead() = default;
  Result<Sequence> make_sequence(const graph::SequenceDescriptor& descriptor) const;
  Status check_slice(const graph::Microbatch& microbatch, const graph::SequenceSlice& slice) const;
  void list_rows(const graph::SequenceSlice& slice, int64_t first_row);
  Status finish_row(const Row& row, float* logits);
  void fail_row(const Row& row);
  Status score_row(const Row& row, float* logits);

  const LlamaConfig* config_ = nullptr;
  kernels::cpu::Isa isa_ = kernels::cpu::Isa::reference;
  const Tokenizer* tokenizer_ = nullptr;
  int64_t group_rows_ = 0;
  LazyMemory memory_;        // normed rows, then logits
  float* normed_ = nullptr;  // [group_rows, hidden]
  float* logits_ = nullptr;  // [group_rows, vocabulary]
  std::unique_ptr<kernels::cpu::ActivationBuffer> activations_;
  std::unordered_map<SequenceId, Sequence> sequences_;
  std::vector<std::pair<SequenceId, Sequence>> pending_;  // between check and apply
  std::vector<Row> rows_;
  graph::StepResult results_;
  std::vector<std::optional<Error>> errors_;  // one per team member
};

}  // namespace chainpump::models
