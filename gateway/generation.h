// A request for text under way: tokens come in from the engine, deltas are taken out by whoever
// delivers them. What waits to be taken is bounded: a client that does not keep up slows only
// itself, and one that falls behind by more than the bound has its request ended with `overloaded`.
//
// Thread rule: take() belongs to one thread at a time, everything else to any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gateway/live_request.h"
#include "gateway/text_stream.h"

namespace chainpump::gateway {

struct GenerationOptions {
  size_t buffer_bytes_max =
      256 << 10;  // of deltas that nobody has taken yet, as they would be sent
  int32_t num_choices = 1;
  bool logprobs = false;
  uint64_t seed = 0;
  int32_t num_prompt_tokens = 0;
  std::vector<std::string> stop;
  std::vector<ChoiceSoFar> so_far;  // none, or one for each
};

class Generation final : public LiveRequest {
 public:
  /// For Core, which is to call submit().
  Generation(Surroundings surroundings, RequestId id, Duration deadline, Wake wake,
             const models::Tokenizer& tokenizer, GenerationOptions options);
  using LiveRequest::submit;

  /// All that has become certain since the last call: one delta per choice that has news, then the
  /// end. The end comes once, alone or after the last deltas.
  Update take();
  uint64_t seed() const { return options_.seed; }
  int32_t num_prompt_tokens() const { return options_.num_prompt_tokens; }
  int64_t num_tokens_held() override;

 private:
  struct Choice {
    // Not taken yet:
    std::vector<TokenId> tokens;
    std::vector<TokenLogprobs> logprobs;
    graph::FinishReason finish = graph::FinishReason::none;
    int64_t text_bytes = -1;
    // In all:
    ChoiceUsage usage;
    std::optional<TimePoint> first_at;
  };
  struct Taken {  // the taker's alone
    TextStream text;
    int32_t num_tokens = 0;
    bool finished = false;
  };

  bool on_token(size_t choice, const graph::TokenResult& token, TimePoint now) override;
  bool on_score(const graph::ScoreResult&) override { return false; }

  const GenerationOptions options_;
  std::vector<Choice> choices_;
  size_t buffer_bytes_ = 0;
  std::vector<Taken> taken_;
  bool end_taken_ = false;
};

}  // namespace chainpump::gateway
