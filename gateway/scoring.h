// A request for log-probabilities under way. Any thread.
#pragma once

#include <optional>

#include "gateway/live_request.h"

namespace chainpump::gateway {

class Scoring final : public LiveRequest {
 public:
  /// For Core, which is to call submit().
  Scoring(Surroundings surroundings, RequestId id, Duration deadline, Wake wake,
          int32_t first_position, size_t num_targets);
  using LiveRequest::submit;

  /// The answer, once, when it is there.
  std::optional<Result<Scores>> take();
  int64_t num_tokens_held() override;

 private:
  bool on_token(size_t, const graph::TokenResult&, TimePoint) override { return false; }
  bool on_score(const graph::ScoreResult& score) override;

  const int32_t first_position_;
  Scores scores_;
  size_t num_scored_ = 0;
  bool taken_ = false;
};

}  // namespace chainpump::gateway
