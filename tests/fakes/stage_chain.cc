#include "tests/fakes/stage_chain.h"

#include <algorithm>

#include "base/kv_layout.h"

namespace chainpump::fakes {

Result<StageChain> StageChain::load(const std::string& model_path, const ChainOptions& options) {
  StageChain chain;
  for (int32_t i = 0; i < options.num_stages; ++i) {
    models::StageSpec spec = options.spec;
    spec.layer_begin = options.num_layers * i / options.num_stages;
    spec.layer_end = options.num_layers * (i + 1) / options.num_stages;
    spec.has_embedding = i == 0;
    spec.has_head = i == options.num_stages - 1;
    ASSIGN_OR_RETURN(auto stage, models::load_stage(model_path, spec, {}));
    chain.stages_.push_back(std::move(stage));
  }
  // Odd blocks first, then even ones: neighbours in a sequence are no neighbours in memory.
  for (int32_t block = 0; block < options.spec.num_kv_blocks; block += 2) {
    chain.free_blocks_.emplace_back(block);
  }
  for (int32_t block = 1; block < options.spec.num_kv_blocks; block += 2) {
    chain.free_blocks_.emplace_back(block);
  }
  return chain;
}

KvBlockId StageChain::take_block() {
  CHECK(!free_blocks_.empty());
  const KvBlockId block = free_blocks_.back();
  free_blocks_.pop_back();
  return block;
}

void StageChain::begin(const graph::SequenceDescriptor& descriptor) {
  next_.descriptors.push_back(descriptor);
  held_[descriptor.id] = {};
}

void StageChain::release(SequenceId id) {
  next_.released.push_back(id);
  const Held& held = held_.at(id);
  free_blocks_.insert(free_blocks_.begin(), held.blocks.begin(), held.blocks.end());
  held_.erase(id);
}

Result<graph::StepResult> StageChain::run(const std::vector<Feed>& feeds) {
  constexpr int32_t kBlock = kKvBlockTokens;
  for (const Feed& feed : feeds) {
    Held& held = held_.at(feed.id);
    graph::SequenceSlice& slice = next_.slices.emplace_back();
    slice.id = feed.id;
    slice.first_position = held.num_tokens;
    slice.tokens = feed.tokens;
    slice.sample = feed.sample;
    slice.table_offset = static_cast<int32_t>(held.blocks.size());
    held.num_tokens += static_cast<int32_t>(feed.tokens.size());
    while (static_cast<int32_t>(held.blocks.size()) * kBlock < held.num_tokens) {
      slice.new_blocks.push_back(take_block());
      held.blocks.push_back(slice.new_blocks.back());
    }
  }
  const uint64_t number = next_.id.value + 1;
  next_.id = MicrobatchId(number);
  Result<graph::StepResult> result = run_raw(next_);
  next_ = {};
  next_.id = MicrobatchId(number);
  return result;
}

Result<graph::StepResult> StageChain::run_raw(const graph::Microbatch& microbatch) {
  graph::StepResult result;
  const auto floats =
      static_cast<size_t>(microbatch.num_tokens()) * static_cast<size_t>(stages_[0]->hidden_size());
  activations_[0].resize(std::max(activations_[0].size(), floats));
  activations_[1].resize(std::max(activations_[1].size(), floats));
  for (size_t i = 0; i < stages_.size(); ++i) {
    const bool first = i == 0;
    const bool last = i + 1 == stages_.size();
    RETURN_IF_ERROR(stages_[i]->run(
        microbatch, std::span<const float>(activations_[(i + 1) % 2].data(), first ? 0 : floats),
        std::span<float>(activations_[i % 2].data(), last ? 0 : floats), result));
  }
  return result;
}

Result<std::vector<graph::TokenResult>> StageChain::generate(
    const graph::SequenceDescriptor& descriptor, int32_t chunk) {
  begin(descriptor);
  std::vector<TokenId> tokens = descriptor.prompt;
  tokens.insert(tokens.end(), descriptor.generated.begin(), descriptor.generated.end());
  const size_t step = chunk > 0 ? static_cast<size_t>(chunk) : tokens.size();
  std::vector<graph::TokenResult> made;
  for (size_t at = 0; at < tokens.size(); at += step) {
    const size_t end = std::min(at + step, tokens.size());
    const std::vector<TokenId> part(tokens.begin() + static_cast<ptrdiff_t>(at),
                                    tokens.begin() + static_cast<ptrdiff_t>(end));
    ASSIGN_OR_RETURN(graph::StepResult result, run({{descriptor.id, part, end == tokens.size()}}));
    made.insert(made.end(), result.tokens.begin(), result.tokens.end());
  }
  while (made.back().finish == graph::FinishReason::none) {
    ASSIGN_OR_RETURN(graph::StepResult result, run({{descriptor.id, {made.back().token}, true}}));
    made.insert(made.end(), result.tokens.begin(), result.tokens.end());
  }
  release(descriptor.id);
  return made;
}

Result<std::vector<graph::ScoreResult>> StageChain::score(
    const graph::SequenceDescriptor& descriptor, int32_t chunk) {
  begin(descriptor);
  const std::vector<TokenId>& tokens = descriptor.prompt;
  const size_t step = chunk > 0 ? static_cast<size_t>(chunk) : tokens.size();
  std::vector<graph::ScoreResult> scores;
  for (size_t at = 0; at < tokens.size(); at += step) {
    const size_t end = std::min(at + step, tokens.size());
    const std::vector<TokenId> part(tokens.begin() + static_cast<ptrdiff_t>(at),
                                    tokens.begin() + static_cast<ptrdiff_t>(end));
    ASSIGN_OR_RETURN(graph::StepResult result, run({{descriptor.id, part, false}}));
    scores.insert(scores.end(), result.scores.begin(), result.scores.end());
  }
  release(descriptor.id);
  return scores;
}

std::vector<TokenId> prompt_of(int32_t count, int32_t salt) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back((i * 31 + i * i / 7 + salt) % 80);
  return tokens;
}

}  // namespace chainpump::fakes
