#include "models/sleep/sleep_stage.h"

#include <sys/prctl.h>

#include <algorithm>
#include <ctime>

namespace chainpump::models {
namespace {

constexpr Duration kEarlyMax = std::chrono::microseconds(100);

/// What a row of the residual stream says: which token stands at which position.
float mark_of(TokenId token, int32_t position) {
  return static_cast<float>((token * 31 + position) & 0xfffff);
}

graph::MicrobatchLimits limits_of(const StageSpec& spec) {
  return {.max_tokens = spec.max_microbatch_tokens,
          .max_sequences = spec.max_sequences,
          .context_tokens = spec.context_tokens,
          .num_kv_blocks = spec.num_kv_blocks,
          .vocabulary_size = kSleepVocabulary};
}

}  // namespace

SleepStage::SleepStage(std::vector<SleepLayer> layers, const StageSpec& spec)
    : layers_(std::move(layers)),
      is_first_(spec.has_embedding),
      is_last_(spec.has_head),
      limits_(limits_of(spec)),
      table_(limits_) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // of this thread: the deadline, not 50 us after it
}

Result<std::unique_ptr<StageExecutor>> SleepStage::load(const std::string& path,
                                                        const StageSpec& spec) {
  ASSIGN_OR_RETURN(const std::vector<SleepLayer> layers, parse_sleep_model(path));
  const auto num_layers = static_cast<int32_t>(layers.size());
  if (spec.layer_begin < 0 || spec.layer_begin > spec.layer_end || spec.layer_end > num_layers)
    return make_error(ErrorCode::invalid_argument, "stage of layers [{}, {}) of a model with {}",
                      spec.layer_begin, spec.layer_end, num_layers);
  if (spec.num_kv_blocks < 1 || spec.max_microbatch_tokens < 1 || spec.max_sequences < 1 ||
      spec.context_tokens < 1)
    return make_error(ErrorCode::invalid_argument, "a sleeping stage needs limits of at least 1");
  return std::unique_ptr<StageExecutor>(
      new SleepStage({layers.begin() + spec.layer_begin, layers.begin() + spec.layer_end}, spec));
}

ExecutorStats SleepStage::stats() const {
  ExecutorStats stats;
  stats.numerics_id = "sleep";
  return stats;
}

Status SleepStage::check_tokens(const graph::SequenceSlice& slice,
                                std::span<const TokenId> known) const {
  const auto begin = static_cast<size_t>(slice.first_position);
  const size_t end = begin + slice.tokens.size();
  // What a stage before the last has not been told yet comes with the next slice.
  for (size_t i = begin; i < std::min(end, known.size()); ++i) {
    if (slice.tokens[i - begin] == known[i]) continue;
    return make_error(ErrorCode::invalid_argument, "sequence {}: token {} at position {} is {}",
                      slice.id, slice.tokens[i - begin], i, known[i]);
  }
  if (begin > known.size() || (is_last_ && end > known.size()) ||
      (is_last_ && slice.sample && end != known.size()))
    return make_error(ErrorCode::invalid_argument,
                      "sequence {}: positions [{}, {}), but {} tokens are known", slice.id, begin,
                      end, known.size());
  return ok_status();
}

Status SleepStage::check(const graph::Microbatch& microbatch, std::span<const float> input,
                         std::span<const float> output) {
  RETURN_IF_ERROR(table_.check(microbatch));
  const size_t floats = static_cast<size_t>(microbatch.num_tokens()) * kSleepHidden;
  if (input.size() != (is_first_ ? 0 : floats))
    return make_error(ErrorCode::invalid_argument, "microbatch {}: an input of {} floats",
                      microbatch.id, input.size());
  CHECK_EQ(output.size(), is_last_ ? 0 : floats);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    if (d.score.first_position >= 0)
      return make_error(ErrorCode::unimplemented, "sequence {}: a sleeping stage does not score",
                        d.id);
  }
  size_t row = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto described =
        std::find_if(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                     [&](const auto& d) { return d.id == slice.id; });
    if (described != microbatch.descriptors.end()) {
      std::vector<TokenId> known = described->prompt;
      known.insert(known.end(), described->generated.begin(), described->generated.end());
      RETURN_IF_ERROR(check_tokens(slice, known));
    } else {
      RETURN_IF_ERROR(check_tokens(slice, sequences_.at(slice.id).tokens));
    }
    for (size_t i = 0; i < slice.tokens.size(); ++i, ++row) {
      const int32_t position = slice.first_position + static_cast<int32_t>(i);
      if (is_first_ || input[row * kSleepHidden] == mark_of(slice.tokens[i], position)) continue;
      return make_error(ErrorCode::invalid_argument,
                        "sequence {}: the row of position {} is another's", slice.id, position);
    }
  }
  return ok_status();
}

void SleepStage::describe(const graph::SequenceDescriptor& descriptor) {
  Sequence& sequence = sequences_[descriptor.id];
  sequence.tokens = descriptor.prompt;
  sequence.tokens.insert(sequence.tokens.end(), descriptor.generated.begin(),
                         descriptor.generated.end());
  sequence.num_prompt = descriptor.prompt.size();
  sequence.max_new_tokens = descriptor.sampling.max_new_tokens;
  sequence.hash = SleepHash(descriptor.sampling.seed, descriptor.sequence_index);
  for (const TokenId token : sequence.tokens) sequence.hash.add(token);
}

graph::TokenResult SleepStage::sample(const graph::SequenceSlice& slice, Sequence& sequence) const {
  graph::TokenResult token;
  token.id = slice.id;
  token.position = static_cast<int32_t>(sequence.tokens.size());
  token.token = sequence.hash.next();
  sequence.tokens.push_back(token.token);
  sequence.hash.add(token.token);
  const size_t num_made = sequence.tokens.size() - sequence.num_prompt;
  if (num_made >= static_cast<size_t>(sequence.max_new_tokens))
    token.finish = graph::FinishReason::length;
  return token;
}

void SleepStage::sleep(Duration duration) {
  const TimePoint start = steady_clock().now() - overslept_;
  deadline_ = std::max(deadline_, start) + duration;
  const TimePoint wake = deadline_ - early_;
  const int64_t ns = wake.since_epoch.count();
  constexpr int64_t kSecond = 1'000'000'000;
  const timespec until{.tv_sec = ns / kSecond, .tv_nsec = ns % kSecond};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) continue;
  TimePoint now = steady_clock().now();
  early_ = std::clamp(now - wake, early_ - early_ / 16, kEarlyMax);
  while (now < deadline_) now = steady_clock().now();
  overslept_ = now - deadline_;
}

Status SleepStage::run(const graph::Microbatch& microbatch, std::span<const float> input,
                       std::span<float> output, graph::StepResult& result) {
  RETURN_IF_ERROR(check(microbatch, input, output));
  table_.apply(microbatch);
  for (const SequenceId id : microbatch.released) sequences_.erase(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) describe(d);
  std::fill(output.begin(), output.end(), 0.0f);
  size_t row = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    Sequence& sequence = sequences_.at(slice.id);
    for (size_t i = 0; i < slice.tokens.size(); ++i, ++row) {
      const int32_t position = slice.first_position + static_cast<int32_t>(i);
      if (static_cast<size_t>(position) == sequence.tokens.size())
        sequence.tokens.push_back(slice.tokens[i]);
      if (!is_last_) output[row * kSleepHidden] = mark_of(slice.tokens[i], position);
    }
    if (is_last_ && slice.sample) result.tokens.push_back(sample(slice, sequence));
  }
  if (row > 0) sleep(sleep_time(layers_, microbatch));
  return ok_status();
}

}  // namespace chainpump::models
