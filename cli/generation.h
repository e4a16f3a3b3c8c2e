// One generation as the command line sees it: text is shown as it comes, and in the end there is an
// answer with its figures.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/service.h"

namespace chainpump::cli {

struct Generated {
  std::string text;
  std::vector<TokenId> token_ids;
  graph::FinishReason finish = graph::FinishReason::none;
  Duration to_first_token{0};  // as the gateway saw it
  Duration first_to_last{0};
  double tpot_ms() const;
  double tokens_per_second() const;  // of decode; 0 with fewer than two tokens
};

/// Runs one request to its end and calls `show` with each piece of text that has become certain;
/// once that says false, as nobody takes the text, the request is cancelled. Cancelled by
/// interrupt(), too. One generation at a time.
class Generation {
 public:
  explicit Generation(gateway::Service& service) : service_(service) {}

  Result<Generated> run(std::vector<TokenId> prompt, const graph::SamplingParams& sampling,
                        const std::function<bool(std::string_view)>& show);

  /// Ends the request under way with `cancelled`, within a second even if no stage answers any
  /// more; false if there is none. Any thread.
  bool interrupt();

 private:
  class Running;

  gateway::Service& service_;
  std::mutex mutex_;
  bool running_ = false;
  bool interrupted_ = false;
  gateway::Generating* generating_ = nullptr;  // while it runs and has been admitted
};

}  // namespace chainpump::cli
