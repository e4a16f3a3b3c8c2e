// One generation as the command line sees it: tokens arrive on the runtime's thread, the command's
// thread prints them as text. Stop strings never show, not even in part.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/runtime.h"
#include "base/clock.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::cli {

struct Generated {
  std::string text;
  std::vector<TokenId> token_ids;
  graph::FinishReason finish = graph::FinishReason::none;
  Duration to_first_token{0};  // from the submit
  Duration first_to_last{0};
  double tpot_ms() const;
  double tokens_per_second() const;  // of decode; 0 with fewer than two tokens
};

/// Runs one request to its end and calls `show` with each piece of text that has become certain;
/// once that says false, as nobody takes the text, the request is cancelled. Cancelled by
/// interrupt(), too. One generation at a time.
class Generation {
 public:
  Generation(actors::Runtime& runtime, const models::Tokenizer& tokenizer)
      : runtime_(runtime), tokenizer_(tokenizer) {}

  Result<Generated> run(std::vector<TokenId> prompt, const graph::SamplingParams& sampling,
                        const std::function<bool(std::string_view)>& show);

  /// Ends the request under way with `cancelled`, within a second even if no stage answers any
  /// more; false if there is none. Any thread.
  bool interrupt();

 private:
  struct Inbox;
  struct Running {
    RequestId id;
    std::shared_ptr<Inbox> inbox;
  };

  actors::Runtime& runtime_;
  const models::Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::optional<Running> running_;
};

}  // namespace chainpump::cli
