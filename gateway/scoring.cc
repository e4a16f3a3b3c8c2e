#include "gateway/scoring.h"

namespace chainpump::gateway {

Scoring::Scoring(Surroundings surroundings, RequestId id, Duration deadline, Wake wake,
                 int32_t first_position, size_t num_targets)
    : LiveRequest(std::move(surroundings), id, deadline, std::move(wake)),
      first_position_(first_position),
      scores_{.logprobs = std::vector<float>(num_targets),
              .argmax = std::vector<TokenId>(num_targets)} {}

bool Scoring::on_score(const graph::ScoreResult& score) {
  const auto index = static_cast<size_t>(score.position - first_position_);
  CHECK_LT(index, scores_.logprobs.size());
  scores_.logprobs[index] = score.logprob;
  scores_.argmax[index] = score.argmax;
  ++num_scored_;
  return false;
}

std::optional<Result<Scores>> Scoring::take() {
  const std::lock_guard lock(mutex_);
  awake_ = false;
  if (!end_ || taken_) return std::nullopt;
  taken_ = true;
  if (!end_->ok()) return Result<Scores>(end_->error());
  if (num_scored_ != scores_.logprobs.size())
    return Result<Scores>(make_error(ErrorCode::internal, "{} of {} scores came", num_scored_,
                                     scores_.logprobs.size()));
  return Result<Scores>(std::move(scores_));
}

int64_t Scoring::num_tokens_held() {
  const std::lock_guard lock(mutex_);
  return end_ ? 0 : first_position_ + 1 + static_cast<int64_t>(scores_.logprobs.size());
}

}  // namespace chainpump::gateway
