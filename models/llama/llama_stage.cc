#include "models/llama/llama_stage.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "models/fingerprint.h"

namespace chainpump::models {
namespace {

using kernels::cpu::TeamMember;

// Raised whenever a kernel's order of additions or a conversion changes: old and new ranks must
// then not share a lane.
constexpr int kNumericsVersion = 6;

Status check_spec(const StageSpec& spec, const LlamaConfig& config) {
  const auto refuse = [](std::string what) { return Error{ErrorCode::invalid_argument, what}; };
  if (spec.layer_begin < 0 || spec.layer_begin > spec.layer_end ||
      spec.layer_end > config.num_layers) {
    return refuse(fmt::format("stage of layers [{}, {}) of a model with {}", spec.layer_begin,
                              spec.layer_end, config.num_layers));
  }
  if (spec.has_embedding && spec.layer_begin != 0) return refuse("only the first stage embeds");
  if (spec.has_head && spec.layer_end != config.num_layers) {
    return refuse("only the last stage has the head");
  }
  const auto outside = [](int64_t value, int64_t high) { return value < 1 || value > high; };
  if (outside(spec.num_threads, 1024)) return refuse("num_threads outside [1, 1024]");
  if (!spec.cores.empty() && spec.cores.size() != static_cast<size_t>(spec.num_threads)) {
    return refuse(fmt::format("{} cores for {} threads", spec.cores.size(), spec.num_threads));
  }
  if (outside(spec.num_kv_blocks, 1 << 28)) return refuse("num_kv_blocks outside [1, 2^28]");
  if (outside(spec.max_microbatch_tokens, 1 << 20)) {
    return refuse("max_microbatch_tokens outside [1, 2^20]");
  }
  if (outside(spec.max_sequences, 1 << 20)) return refuse("max_sequences outside [1, 2^20]");
  if (outside(spec.context_tokens, 1 << 26)) return refuse("context_tokens outside [1, 2^26]");
  return ok_status();
}

}  // namespace

Result<std::unique_ptr<StageExecutor>> LlamaStage::load(MappedFile mapped, GgufFile file,
                                                        const StageSpec& spec,
                                                        const LoadProgress& progress) {
  std::unique_ptr<LlamaStage> stage(new LlamaStage(std::move(mapped), std::move(file), spec));
  RETURN_IF_ERROR(stage->initialise(progress));
  return std::unique_ptr<StageExecutor>(std::move(stage));
}

Status LlamaStage::initialise(const LoadProgress& progress) {
  ASSIGN_OR_RETURN(config_, read_llama_config(file_));
  RETURN_IF_ERROR(check_spec(spec_, config_));
  ASSIGN_OR_RETURN(const LlamaTensors tensors, find_llama_tensors(file_, config_));
  ASSIGN_OR_RETURN(isa_, kernels::cpu::choose_isa(spec_.isa));
  fingerprint_ = model_fingerprint(mapped_.bytes(), file_);
  std::vector<float> freq_factors;
  if (tensors.freq_factors != nullptr) freq_factors = read_f32(*tensors.freq_factors);
  rope_ = make_rope_table(config_.rope, freq_factors);

  ASSIGN_OR_RETURN(
      kv_, KvPool::create({spec_.kv_type, spec_.layer_end - spec_.layer_begin, spec_.num_kv_blocks,
                           config_.num_kv_heads, config_.head_dim}));
  ASSIGN_OR_RETURN(scratch_, LayerScratch::create(config_, spec_, isa_));
  ASSIGN_OR_RETURN(kernels::cpu::Team team,
                   kernels::cpu::Team::create(
                       {spec_.num_threads, spec_.cores, spec_.spin_between_ops, spec_.beat}));
  team_.emplace(std::move(team));
  PanelCache cache({.folder = spec_.cache_folder},
                   {mapped_.path(), mapped_.identity(), fingerprint_, isa_});
  weights_ = load_stage_weights(tensors, spec_, isa_, *team_, cache, progress);
  weight_bytes_cached_ = cache.panel_bytes_read();
  cache_note_ = cache.note();
  if (spec_.has_head) RETURN_IF_ERROR(load_head());
  sequences_.emplace(limits());
  tokens_.reserve(static_cast<size_t>(spec_.max_microbatch_tokens));
  positions_.reserve(static_cast<size_t>(spec_.max_microbatch_tokens));
  slices_.reserve(static_cast<size_t>(spec_.max_sequences));
  written_.reserve(static_cast<size_t>(spec_.max_sequences));
  return ok_status();
}

Status LlamaStage::load_head() {
  const std::optional<std::string_view> kind = file_.find_string("tokenizer.ggml.model");
  if (kind && *kind != "no_vocab") {  // else a vocabulary without text: ids only
    ASSIGN_OR_RETURN(tokenizer_, load_tokenizer(file_));
  }
  ASSIGN_OR_RETURN(head_, OutputHead::create(config_, isa_, tokenizer_.get()));
  return ok_status();
}

graph::MicrobatchLimits LlamaStage::limits() const {
  graph::MicrobatchLimits limits;
  limits.max_tokens = spec_.max_microbatch_tokens;
  limits.max_sequences = spec_.max_sequences;
  limits.context_tokens = spec_.context_tokens;
  limits.num_kv_blocks = spec_.num_kv_blocks;
  limits.vocabulary_size = config_.vocabulary_size;
  return limits;
}

ExecutorStats LlamaStage::stats() const {
  ExecutorStats stats;
  stats.weight_bytes_read = weights_.bytes_read;
  stats.weight_bytes_cached = weight_bytes_cached_;
  stats.cache_note = cache_note_;
  stats.weight_bytes_held = weights_.bytes_held;
  stats.kv_bytes = kv_->bytes();
  stats.numerics_id =
      fmt::format("cpu-{}-{}/kv-{}/activations-{}/{:016x}", to_string(isa_), kNumericsVersion,
                  to_string(spec_.kv_type), spec_.exact_activations ? "f32" : "int8", fingerprint_);
  return stats;
}

Status LlamaStage::check(const graph::Microbatch& microbatch, std::span<const float> input,
                         std::span<const float> output) {
  RETURN_IF_ERROR(sequences_->check(microbatch));
  const size_t floats =
      static_cast<size_t>(microbatch.num_tokens()) * static_cast<size_t>(config_.hidden_size);
  const size_t expected_input = spec_.has_embedding ? 0 : floats;
  if (input.size() != expected_input) {
    return make_error(ErrorCode::invalid_argument,
                      "microbatch {}: an input of {} floats, expected {}", microbatch.id,
                      input.size(), expected_input);
  }
  CHECK_EQ(output.size(), spec_.has_head ? 0 : floats);
  if (head_) RETURN_IF_ERROR(head_->check(microbatch));
  return ok_status();
}

void LlamaStage::lay_out(const graph::Microbatch& microbatch) {
  tokens_.clear();
  positions_.clear();
  slices_.clear();
  written_.clear();
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto num_tokens = static_cast<int32_t>(slice.tokens.size());
    const int32_t num_held = sequences_->write_from()[slices_.size()] - slice.first_position;
    kernels::cpu::AttentionSlice part{static_cast<int64_t>(tokens_.size()), num_tokens,
                                      slice.first_position, sequences_->block_table(slice.id)};
    slices_.push_back(part);
    if (num_held < num_tokens) {
      part.first_row += num_held;
      part.num_tokens -= num_held;
      part.first_position += num_held;
      written_.push_back(part);
    }
    tokens_.insert(tokens_.end(), slice.tokens.begin(), slice.tokens.end());
    for (int32_t i = 0; i < num_tokens; ++i) positions_.push_back(slice.first_position + i);
  }
}

void LlamaStage::embed(const TeamMember& member, float* x) const {
  const GgufTensor& table = *weights_.embedding;
  const auto row_size = static_cast<size_t>(row_bytes(table.type, table.cols()));
  const auto hidden = static_cast<size_t>(config_.hidden_size);
  const kernels::cpu::Range rows = share_of(member, static_cast<int64_t>(tokens_.size()), 1);
  for (auto t = static_cast<size_t>(rows.begin); t < static_cast<size_t>(rows.end); ++t) {
    const auto at = static_cast<size_t>(tokens_[t]) * row_size;
    kernels::cpu::dequantize_row(table.type, table.bytes.subspan(at, row_size),
                                 std::span(x + t * hidden, hidden));
  }
}

/// A member copies whole layers, so that copies of one layer keep their order.
void LlamaStage::copy_blocks(const TeamMember& member,
                             std::span<const graph::BlockCopy> copies) const {
  const kernels::cpu::Range layers =
      share_of(member, static_cast<int64_t>(weights_.layers.size()), 1);
  for (int64_t layer = layers.begin; layer < layers.end; ++layer) {
    for (const graph::BlockCopy& copy : copies)
      kv_->copy_block(static_cast<int32_t>(layer), copy.from, copy.to);
  }
}

void LlamaStage::compute(TeamMember& member, std::span<const float> input, float* x) {
  if (spec_.has_embedding) {
    embed(member, x);
  } else {
    // The residual stream is added to in place, so the input is copied once into its place.
    const kernels::cpu::Range part =
        share_of(member, static_cast<int64_t>(input.size()), config_.hidden_size);
    std::memcpy(x + part.begin, input.data() + part.begin,
                static_cast<size_t>(part.end - part.begin) * sizeof(float));
  }
  compute_turns(member, isa_, rope_, positions_, *scratch_);
  member.barrier();
  const LayerInput layer_input{isa_, &config_, slices_, written_,
                               static_cast<int64_t>(positions_.size())};
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    run_layer(member, layer_input, weights_.layers[i], kv_->layer(static_cast<int32_t>(i)),
              *scratch_, x);
  }
  if (head_) head_->consume(member, weights_, x);
}

Status LlamaStage::run(const graph::Microbatch& microbatch, std::span<const float> input,
                       std::span<float> output, graph::StepResult& result) {
  RETURN_IF_ERROR(check(microbatch, input, output));
  sequences_->apply(microbatch);
  if (head_) head_->apply(microbatch);
  lay_out(microbatch);
  float* x = head_ ? scratch_->residual() : output.data();
  if (!tokens_.empty() || !microbatch.copies.empty()) {
    team_->run([&](TeamMember& member) {
      copy_blocks(member, microbatch.copies);
      if (!tokens_.empty()) compute(member, input, x);  // has a barrier before it reads a block
    });
  }
  result.id = microbatch.id;
  result.tokens.clear();
  result.scores.clear();
  return head_ ? head_->take_results(result) : ok_status();
}

}  // namespace chainpump::models
