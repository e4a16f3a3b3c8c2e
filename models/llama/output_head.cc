#include "models/llama/output_head.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/math.h"
#include "models/npy.h"

namespace chainpump::models {
namespace {

// As many rows at once as keep the products efficient, within this many bytes of logits.
constexpr int64_t kMaxGroupRows = 64;
constexpr int64_t kMaxLogitBytes = int64_t{16} << 20;

/// Rounded once, at the end.
float log_prob(float logit, double log_sum) {
  return static_cast<float>(static_cast<double>(logit) - log_sum);
}

/// Whether rms_norm makes anything of the row: a sum of squares that overflows makes zeros of
/// finite numbers, and of those finite logits.
bool has_norm(std::span<const float> row) {
  float sum = 0;
  for (const float value : row) sum += value * value;
  return std::isfinite(sum);
}

}  // namespace

Result<OutputHead> OutputHead::create(const LlamaConfig& config, kernels::cpu::Isa isa,
                                      const Tokenizer* tokenizer) {
  OutputHead head;
  head.config_ = &config;
  head.isa_ = isa;
  head.tokenizer_ = tokenizer;
  const int64_t logit_row_bytes = int64_t{config.vocabulary_size} * 4;
  head.group_rows_ = std::clamp<int64_t>(kMaxLogitBytes / logit_row_bytes, 1, kMaxGroupRows);
  const int64_t normed_floats = (head.group_rows_ * config.hidden_size + 63) / 64 * 64;
  const int64_t floats = normed_floats + head.group_rows_ * config.vocabulary_size;
  ASSIGN_OR_RETURN(head.memory_, LazyMemory::reserve(floats * 4, "logits"));
  head.normed_ = reinterpret_cast<float*>(head.memory_.data());
  head.logits_ = head.normed_ + normed_floats;
  head.activations_ =
      std::make_unique<kernels::cpu::ActivationBuffer>(isa, head.group_rows_, config.hidden_size);
  return head;
}

Result<OutputHead::Sequence> OutputHead::make_sequence(
    const graph::SequenceDescriptor& descriptor) const {
  Sequence sequence;
  const size_t num_tokens = descriptor.prompt.size() + descriptor.generated.size();
  sequence.next_position = static_cast<int32_t>(num_tokens);
  sequence.score = descriptor.score;
  if (descriptor.score.first_position < 0) {
    ASSIGN_OR_RETURN(Sampler sampler, Sampler::create(descriptor, tokenizer_, isa_));
    sequence.sampler.emplace(std::move(sampler));
    return sequence;
  }
  for (const TokenId token : descriptor.prompt) {
    if (token >= 0 && token < config_->vocabulary_size) continue;
    return make_error(ErrorCode::invalid_argument, "sequence {}: prompt token {} is not in [0, {})",
                      descriptor.id, token, config_->vocabulary_size);
  }
  sequence.prompt = descriptor.prompt;
  const int64_t rows =
      static_cast<int64_t>(descriptor.prompt.size()) - 1 - descriptor.score.first_position;
  if (rows < 1) {
    return make_error(ErrorCode::invalid_argument,
                      "sequence {}: scoring from position {} of a prompt of {} tokens",
                      descriptor.id, descriptor.score.first_position, descriptor.prompt.size());
  }
  if (!descriptor.score.full_path.empty()) {
    ASSIGN_OR_RETURN(sequence.full,
                     open_npy_rows(descriptor.score.full_path, rows, config_->vocabulary_size));
  }
  return sequence;
}

Status OutputHead::check_slice(const graph::Microbatch& microbatch,
                               const graph::SequenceSlice& slice) const {
  const auto made = std::find_if(pending_.begin(), pending_.end(),
                                 [&](const auto& entry) { return entry.first == slice.id; });
  const Sequence* sequence = made != pending_.end() ? &made->second : nullptr;
  if (sequence == nullptr) {
    const auto it = sequences_.find(slice.id);
    const bool released = std::find(microbatch.released.begin(), microbatch.released.end(),
                                    slice.id) != microbatch.released.end();
    if (it != sequences_.end() && !released) sequence = &it->second;
  }
  if (sequence == nullptr) {
    return make_error(ErrorCode::invalid_argument, "sequence {} is unknown and has no descriptor",
                      slice.id);
  }
  const int64_t end = slice.first_position + static_cast<int64_t>(slice.tokens.size());
  if (slice.sample && !sequence->sampler) {
    return make_error(ErrorCode::invalid_argument, "sequence {}: is scored and cannot be sampled",
                      slice.id);
  }
  if (slice.sample && end != sequence->next_position) {
    return make_error(ErrorCode::invalid_argument,
                      "sequence {}: position {} cannot be sampled, the next one is {}", slice.id,
                      end, sequence->next_position);
  }
  return ok_status();
}

Status OutputHead::check(const graph::Microbatch& microbatch) {
  pending_.clear();
  for (const graph::SequenceDescriptor& descriptor : microbatch.descriptors) {
    ASSIGN_OR_RETURN(Sequence sequence, make_sequence(descriptor));
    pending_.emplace_back(descriptor.id, std::move(sequence));
  }
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    RETURN_IF_ERROR(check_slice(microbatch, slice));
  }
  return ok_status();
}

void OutputHead::apply(const graph::Microbatch& microbatch) {
  for (const SequenceId id : microbatch.released) sequences_.erase(id);
  for (auto& [id, sequence] : pending_) sequences_.insert_or_assign(id, std::move(sequence));
  pending_.clear();
  rows_.clear();
  results_.id = microbatch.id;
  results_.tokens.clear();
  results_.scores.clear();
  int64_t first_row = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    list_rows(slice, first_row);
    first_row += static_cast<int64_t>(slice.tokens.size());
  }
}

void OutputHead::list_rows(const graph::SequenceSlice& slice, int64_t first_row) {
  Sequence& sequence = sequences_.at(slice.id);
  const auto num_tokens = static_cast<int32_t>(slice.tokens.size());
  if (slice.sample) {
    rows_.push_back({first_row + num_tokens - 1, &sequence, slice.first_position + num_tokens - 1,
                     static_cast<int32_t>(results_.tokens.size()), -1});
    results_.tokens.emplace_back().id = slice.id;
    ++sequence.next_position;
  }
  if (sequence.score.first_position < 0) return;
  for (int32_t i = 0; i < num_tokens; ++i) {
    const int32_t position = slice.first_position + i;
    const bool has_next = static_cast<size_t>(position) + 1 < sequence.prompt.size();
    if (position < sequence.score.first_position || !has_next) continue;
    rows_.push_back(
        {first_row + i, &sequence, position, -1, static_cast<int32_t>(results_.scores.size())});
    graph::ScoreResult& score = results_.scores.emplace_back();
    score.id = slice.id;
    score.position = position;
  }
}

Status OutputHead::score_row(const Row& row, float* logits) {
  const std::span<float> values(logits, static_cast<size_t>(config_->vocabulary_size));
  const double log_sum = kernels::cpu::log_sum_exp(isa_, values);
  graph::ScoreResult& score = results_.scores[static_cast<size_t>(row.score_result)];
  const TokenId next = row.sequence->prompt[static_cast<size_t>(row.position) + 1];
  score.logprob = log_prob(values[static_cast<size_t>(next)], log_sum);
  score.argmax = kernels::cpu::argmax(isa_, values);
  if (!row.sequence->full.valid()) return ok_status();
  for (float& value : values) value = log_prob(value, log_sum);
  return write_npy_row(row.sequence->full, row.position - row.sequence->score.first_position,
                       values);
}

void OutputHead::fail_row(const Row& row) {
  if (row.score_result >= 0) results_.scores[static_cast<size_t>(row.score_result)].failed = true;
  if (row.token_result < 0) return;
  graph::TokenResult& token = results_.tokens[static_cast<size_t>(row.token_result)];
  token.position = row.position + 1;
  token.finish = graph::FinishReason::failed;
}

Status OutputHead::finish_row(const Row& row, float* logits) {
  const std::span<float> values(logits, static_cast<size_t>(config_->vocabulary_size));
  if (!row.finite || !kernels::cpu::all_finite(values)) {
    fail_row(row);
    return ok_status();
  }
  if (row.token_result >= 0) {
    graph::TokenResult& token = results_.tokens[static_cast<size_t>(row.token_result)];
    const SequenceId id = token.id;
    token = row.sequence->sampler->sample(row.position + 1, values);
    token.id = id;
  }
  return row.score_result >= 0 ? score_row(row, logits) : ok_status();
}

void OutputHead::consume(kernels::cpu::TeamMember& member, const StageWeights& weights,
                         const float* x) {
  const int64_t hidden = config_->hidden_size;
  const int64_t vocabulary = config_->vocabulary_size;
  if (member.index() == 0) errors_.assign(static_cast<size_t>(member.size()), std::nullopt);
  const auto num_rows = static_cast<int64_t>(rows_.size());
  for (int64_t begin = 0; begin < num_rows; begin += group_rows_) {
    const int64_t count = std::min(group_rows_, num_rows - begin);
    const kernels::cpu::Range mine = share_of(member, count, 1);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      float* normed = normed_ + i * hidden;
      Row& row = rows_[static_cast<size_t>(begin + i)];
      const float* in = x + row.index * hidden;
      row.finite = has_norm({in, static_cast<size_t>(hidden)});
      rms_norm(isa_, in, weights.output_norm.data(), config_->rms_epsilon, hidden, normed);
      activations_->convert(weights.head->form(), normed, i, count, hidden, {0, hidden});
    }
    member.barrier();
    matmul(member, *weights.head, *activations_, count, logits_, vocabulary,
           kernels::cpu::Store::assign);
    member.barrier();
    for (int64_t i = member.index(); i < count; i += member.size()) {
      const Row& row = rows_[static_cast<size_t>(begin + i)];
      const Status written = finish_row(row, logits_ + i * vocabulary);
      if (!written.ok()) errors_[static_cast<size_t>(member.index())] = written.error();
    }
    member.barrier();
  }
}

Status OutputHead::take_results(graph::StepResult& result) {
  result.id = results_.id;
  result.tokens.swap(results_.tokens);
  result.scores.swap(results_.scores);
  for (std::optional<Error>& error : errors_) {
    if (error) return *std::exchange(error, std::nullopt);
  }
  return ok_status();
}

}  // namespace chainpump::models
