#include "cli/generation.h"

#include <algorithm>

namespace chainpump::cli {
namespace {

constexpr Duration kRequestMax = std::chrono::hours(24);
constexpr Duration kCancelMax = std::chrono::seconds(1);

/// How many bytes at the end of `text` may be the beginning of a stop string.
size_t held_back(std::string_view text, const std::vector<std::string>& stops) {
  size_t held = 0;
  for (const std::string& stop : stops)
    for (size_t n = std::min(stop.size() - 1, text.size()); n > held; --n)
      if (text.ends_with(std::string_view(stop).substr(0, n))) held = n;
  return held;
}

}  // namespace

double Generated::tpot_ms() const {
  return token_ids.size() < 2 ? 0
                              : to_ms(first_to_last) / static_cast<double>(token_ids.size() - 1);
}

double Generated::tokens_per_second() const { return tpot_ms() > 0 ? 1e3 / tpot_ms() : 0; }

struct Generation::Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::pair<graph::TokenResult, TimePoint>> tokens;
  std::optional<Result<Ok>> end;
  bool cancelled = false;

  /// Until there is a token or the end. A stage that hangs does not answer a cancel: not for ever.
  void wait(std::unique_lock<std::mutex>& lock) {
    const auto news = [this] { return !tokens.empty() || end; };
    changed.wait(lock, [&] { return news() || cancelled; });
    if (!changed.wait_for(lock, kCancelMax, news))
      end = make_error(ErrorCode::cancelled, "the request was cancelled; no stage said so");
  }
};

Result<Generated> Generation::run(std::vector<TokenId> prompt,
                                  const graph::SamplingParams& sampling,
                                  const std::function<bool(std::string_view)>& show) {
  const auto inbox = std::make_shared<Inbox>();
  actors::SequenceCallbacks callbacks;
  callbacks.on_token = [inbox](const graph::TokenResult& token) {
    const std::lock_guard lock(inbox->mutex);
    inbox->tokens.emplace_back(token, steady_clock().now());
    inbox->changed.notify_one();
  };
  callbacks.on_score = [](const graph::ScoreResult&) {};
  callbacks.on_end = [inbox](Result<Ok> end) {
    const std::lock_guard lock(inbox->mutex);
    inbox->end = std::move(end);
    inbox->changed.notify_one();
  };

  Generated out;
  models::StreamDecoder decoder(tokenizer_);
  size_t shown = 0;
  TimePoint first;
  const TimePoint submitted = steady_clock().now();
  {
    const std::lock_guard lock(mutex_);
    running_ = {
        .id = runtime_.submit(
            {.sequence_index = 0, .sampling = sampling, .score = {}, .prompt = std::move(prompt)},
            kRequestMax, std::move(callbacks)),
        .inbox = inbox};
  }
  bool taken = true;
  const auto show_until = [&](size_t end) {
    if (end <= shown || !taken) return;
    taken = show(std::string_view(out.text).substr(shown, end - shown));
    shown = end;
    if (!taken) interrupt();
  };
  std::unique_lock lock(inbox->mutex);
  for (;;) {
    inbox->wait(lock);
    if (inbox->tokens.empty()) break;
    const auto [token, at] = std::move(inbox->tokens.front());
    inbox->tokens.pop_front();
    lock.unlock();
    if (out.token_ids.empty()) {
      out.to_first_token = at - submitted;
      first = at;
    }
    out.first_to_last = at - first;
    out.token_ids.push_back(token.token);
    out.finish = token.finish;
    out.text += decoder.push(token.token);
    if (token.finish != graph::FinishReason::none) out.text += decoder.finish();
    if (token.text_bytes >= 0)
      out.text.resize(std::min(out.text.size(), static_cast<size_t>(token.text_bytes)));
    const bool ended = token.finish != graph::FinishReason::none;
    show_until(out.text.size() - (ended ? 0 : held_back(out.text, sampling.stop)));
    lock.lock();
  }
  const Result<Ok> end = *inbox->end;
  lock.unlock();
  {
    const std::lock_guard running(mutex_);
    running_.reset();
  }
  if (!end.ok()) return end.error();
  return out;
}

bool Generation::interrupt() {
  const std::lock_guard lock(mutex_);
  if (!running_) return false;
  runtime_.cancel(running_->id);
  const std::lock_guard inbox(running_->inbox->mutex);
  running_->inbox->cancelled = true;
  running_->inbox->changed.notify_one();
  return true;
}

}  // namespace chainpump::cli
