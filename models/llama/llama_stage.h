// The stage executor of the llama architecture: embedding rows, a range of layers, and the output
// head at the last stage, run by a team of threads over one block pool.
// A microbatch is checked whole (models/sequence_table.h, models/llama/output_head.h) before any of
// it is applied. Buffers are sized at the start; decoding allocates nothing of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "models/gguf/gguf.h"
#include "models/kv_pool.h"
#include "models/llama/config.h"
#include "models/llama/layer.h"
#include "models/llama/output_head.h"
#include "models/llama/weights.h"
#include "models/sequence_table.h"
#include "models/stage_executor.h"

namespace chainpump::models {

class LlamaStage final : public StageExecutor {
 public:
  /// `mapped` holds the bytes that `file` was parsed from. Errors as load_stage().
  static Result<std::unique_ptr<StageExecutor>> load(MappedFile mapped, GgufFile file,
                                                     const StageSpec& spec,
                                                     const LoadProgress& progress);

  int32_t hidden_size() const override { return config_.hidden_size; }
  graph::MicrobatchLimits limits() const override;
  ExecutorStats stats() const override;
  const SequenceTable& sequences() const override { return *sequences_; }
  std::span<std::byte> kv_block(int32_t layer, KvBlockId block) override {
    return kv_->block(layer - spec_.layer_begin, block);
  }
  Status take_over(std::span<const graph::StageHoldings::Held> sequences) override {
    return sequences_->take_over(sequences);
  }
  Status run(const graph::Microbatch& microbatch, std::span<const float> input,
             std::span<float> output, graph::StepResult& result) override;

 private:
  LlamaStage(MappedFile mapped, GgufFile file, const StageSpec& spec)
      : mapped_(std::move(mapped)), file_(std::move(file)), spec_(spec) {}

  Status initialise(const LoadProgress& progress);
  Status load_head();
  Status check(const graph::Microbatch& microbatch, std::span<const float> input,
               std::span<const float> output);
  void lay_out(const graph::Microbatch& microbatch);
  void copy_blocks(const kernels::cpu::TeamMember& member,
                   std::span<const graph::BlockCopy> copies) const;
  void compute(kernels::cpu::TeamMember& member, std::span<const float> input, float* x);
  void embed(const kernels::cpu::TeamMember& member, float* x) const;

  MappedFile mapped_;
  GgufFile file_;
  StageSpec spec_;
  LlamaConfig config_;
  RopeTable rope_;
  kernels::cpu::Isa isa_ = kernels::cpu::Isa::reference;
  std::optional<kernels::cpu::Team> team_;
  StageWeights weights_;
  int64_t weight_bytes_cached_ = 0;
  std::string cache_note_;
  std::optional<KvPool> kv_;
  std::optional<SequenceTable> sequences_;
  std::optional<LayerScratch> scratch_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<OutputHead> head_;
  uint64_t fingerprint_ = 0;
  // The microbatch being run, row by row.
  std::vector<TokenId> tokens_;
  std::vector<int32_t> positions_;
  std::vector<kernels::cpu::AttentionSlice> slices_;
  std::vector<kernels::cpu::AttentionSlice> written_;  // slices_ without positions held already
};

}  // namespace chainpump::models
