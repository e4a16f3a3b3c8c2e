#include "graph/sequencer.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {

Sequencer::Sequencer(const SequencerOptions& options)
    : options_(options), blocks_(options.num_kv_blocks) {
  CHECK_GT(options.prefill_chunk_tokens, 0);
  CHECK_GE(options.max_microbatch_tokens, options.prefill_chunk_tokens);
  CHECK_GT(options.max_sequences, 0);
  CHECK_GT(options.max_microbatches, 0);
  CHECK_GT(options.block_tokens, 0);
}

int32_t Sequencer::blocks_for(int32_t num_tokens) const {
  return (num_tokens + options_.block_tokens - 1) / options_.block_tokens;
}

Result<SequenceId> Sequencer::submit(SequenceDescriptor descriptor) {
  RETURN_IF_ERROR(validate(descriptor.sampling, options_.vocabulary_size));
  const auto num_prompt = static_cast<int64_t>(descriptor.prompt.size());
  if (num_prompt == 0) return make_error(ErrorCode::invalid_argument, "the prompt has no tokens");
  for (const TokenId token : descriptor.prompt)
    if (token < 0 || token >= options_.vocabulary_size)
      return make_error(ErrorCode::invalid_argument,
                        "prompt token {} is outside the vocabulary of {} tokens", token,
                        options_.vocabulary_size);
  const bool scoring = descriptor.score.first_position >= 0;
  const int64_t num_known = num_prompt + static_cast<int64_t>(descriptor.generated.size());
  const int64_t room_needed = scoring ? num_prompt : num_known + 1;
  if (room_needed > options_.context_tokens)
    return make_error(ErrorCode::invalid_argument,
                      "the prompt has {} tokens, but this deployment serves {} in all "
                      "(raise kv.context or --context, or shorten the prompt)",
                      num_prompt, options_.context_tokens);
  if (scoring && descriptor.score.first_position + 1 >= num_prompt)
    return make_error(ErrorCode::invalid_argument,
                      "nothing to score: first position {} of {} tokens",
                      descriptor.score.first_position, num_prompt);
  if (static_cast<int32_t>(waiting_.size()) >= options_.max_queued)
    return make_error(ErrorCode::overloaded, "{} requests are waiting already; retry later",
                      waiting_.size());

  Sequence sequence;
  // The last token made is never read back, so it needs no position of its own.
  const int64_t max_new = options_.context_tokens - num_prompt + 1;
  descriptor.sampling.max_new_tokens =
      static_cast<int32_t>(std::min<int64_t>(descriptor.sampling.max_new_tokens, max_new));
  const int64_t num_positions =
      scoring ? num_prompt - 1 : num_prompt + descriptor.sampling.max_new_tokens - 1;
  sequence.blocks_reserved = blocks_for(static_cast<int32_t>(num_positions));
  if (sequence.blocks_reserved > blocks_.num_blocks())
    return make_error(ErrorCode::invalid_argument,
                      "{} tokens need {} KV blocks, but there are {} (raise kv.budget)",
                      num_positions, sequence.blocks_reserved, blocks_.num_blocks());
  descriptor.id = SequenceId(++last_sequence_);
  sequence.tokens = descriptor.prompt;
  sequence.tokens.insert(sequence.tokens.end(), descriptor.generated.begin(),
                         descriptor.generated.end());
  sequence.num_needed = static_cast<int32_t>(scoring ? num_prompt - 1 : num_known);
  if (scoring)
    sequence.num_scores_due =
        static_cast<int32_t>(num_prompt) - 1 - descriptor.score.first_position;
  const SequenceId id = descriptor.id;
  sequence.descriptor = std::move(descriptor);
  sequences_.emplace(id, std::move(sequence));
  waiting_.push_back(id);
  return id;
}

void Sequencer::cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  const auto waiting = std::find(waiting_.begin(), waiting_.end(), id);
  if (waiting != waiting_.end()) {
    waiting_.erase(waiting);
    sequences_.erase(found);
    return;
  }
  release(id);
}

void Sequencer::release(SequenceId id) {
  const auto found = sequences_.find(id);
  CHECK(found != sequences_.end());
  Sequence& sequence = found->second;
  blocks_.give_back(sequence.blocks);
  blocks_.unreserve(sequence.blocks_reserved);
  if (sequence.described) releasing_.push_back(id);
  running_.erase(std::find(running_.begin(), running_.end(), id));
  sequences_.erase(found);
}

void Sequencer::admit() {
  while (!waiting_.empty() && static_cast<int32_t>(running_.size()) < options_.max_sequences) {
    const SequenceId id = waiting_.front();
    if (!blocks_.reserve(sequences_.at(id).blocks_reserved)) return;  // first come, first served
    waiting_.pop_front();
    running_.push_back(id);
  }
}

void Sequencer::add_slice(Sequence& sequence, int32_t num_tokens, Microbatch& microbatch) {
  if (!sequence.described) {
    microbatch.descriptors.push_back(sequence.descriptor);
    sequence.described = true;
  }
  SequenceSlice slice;
  slice.id = sequence.descriptor.id;
  slice.first_position = sequence.num_sent;
  slice.tokens.assign(sequence.tokens.begin() + sequence.num_sent,
                      sequence.tokens.begin() + sequence.num_sent + num_tokens);
  slice.table_offset = static_cast<int32_t>(sequence.blocks.size());
  const int32_t num_blocks = blocks_for(sequence.num_sent + num_tokens);
  while (static_cast<int32_t>(sequence.blocks.size()) < num_blocks) {
    CHECK_GT(sequence.blocks_reserved, 0);
    --sequence.blocks_reserved;
    sequence.blocks.push_back(blocks_.take());
    slice.new_blocks.push_back(sequence.blocks.back());
  }
  sequence.num_sent += num_tokens;
  slice.sample = !sequence.scoring() && sequence.num_pending() == 0;
  microbatch.slices.push_back(std::move(slice));
}

std::optional<Microbatch> Sequencer::next() {
  if (num_in_flight() >= options_.max_microbatches) return std::nullopt;
  Microbatch microbatch;
  microbatch.released = std::move(releasing_);
  releasing_.clear();
  admit();

  // Sequences that decode are spread evenly over the microbatches that fill the chain.
  int32_t num_decoding = 0;
  for (const SequenceId id : running_) {
    const Sequence& sequence = sequences_.at(id);
    if (sequence.num_pending() <= 1 && !sequence.scoring()) ++num_decoding;
  }
  const int32_t spread = std::min(options_.num_stages, options_.max_microbatches);
  int32_t decodes_left = (num_decoding + spread - 1) / spread;
  int32_t tokens_left = options_.max_microbatch_tokens;
  for (const SequenceId id : running_) {
    Sequence& sequence = sequences_.at(id);
    if (decodes_left == 0 || tokens_left == 0) break;
    if (sequence.num_pending() != 1 || sequence.scoring()) continue;
    add_slice(sequence, 1, microbatch);
    --decodes_left;
    --tokens_left;
  }
  int32_t prefill_left = std::min(options_.prefill_chunk_tokens, tokens_left);
  for (const SequenceId id : running_) {
    Sequence& sequence = sequences_.at(id);
    if (prefill_left == 0) break;
    if (sequence.num_pending() < (sequence.scoring() ? 1 : 2)) continue;
    const int32_t num_tokens = std::min(sequence.num_pending(), prefill_left);
    add_slice(sequence, num_tokens, microbatch);
    prefill_left -= num_tokens;
  }
  if (microbatch.slices.empty() && microbatch.released.empty()) return std::nullopt;
  microbatch.id = MicrobatchId(++last_microbatch_);
  in_flight_.push_back(microbatch.id);
  return microbatch;
}

Status Sequencer::on_result(const StepResult& result, Deliveries& out) {
  if (in_flight_.empty() || in_flight_.front() != result.id)
    return make_error(ErrorCode::internal, "result of microbatch {} came out of order", result.id);
  in_flight_.pop_front();
  for (const TokenResult& token : result.tokens) {
    const auto found = sequences_.find(token.id);
    if (found == sequences_.end()) continue;  // cancelled meanwhile
    Sequence& sequence = found->second;
    if (token.position != static_cast<int32_t>(sequence.tokens.size()))
      return make_error(ErrorCode::internal, "sequence {}: a token for position {} after {} tokens",
                        token.id, token.position, sequence.tokens.size());
    sequence.tokens.push_back(token.token);
    ++sequence.num_needed;
    out.tokens.push_back(token);
    if (token.finish == FinishReason::none) continue;
    out.finished.emplace_back(token.id, token.finish);
    release(token.id);
  }
  for (const ScoreResult& score : result.scores) {
    const auto found = sequences_.find(score.id);
    if (found == sequences_.end()) continue;
    out.scores.push_back(score);
    if (--found->second.num_scores_due > 0) continue;
    out.finished.emplace_back(score.id, FinishReason::stop);
    release(score.id);
  }
  return ok_status();
}

bool Sequencer::idle() const {
  return waiting_.empty() && running_.empty() && releasing_.empty() && in_flight_.empty();
}

}  // namespace chainpump::graph
