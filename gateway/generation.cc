#include "gateway/generation.h"

#include <utility>

namespace chainpump::gateway {
namespace {

/// About what a token takes when it is sent: its id, its text, and its log-probabilities.
size_t sent_bytes(const graph::TokenResult& token, bool logprobs) {
  constexpr size_t kToken = 16;
  constexpr size_t kLogprobs = 32;
  constexpr size_t kLogprob = 8;
  return kToken + (logprobs ? kLogprobs + kLogprob * token.top_logprobs.size() : 0);
}

}  // namespace

Generation::Generation(Surroundings surroundings, RequestId id, Duration deadline, Wake wake,
                       const models::Tokenizer& tokenizer, GenerationOptions options)
    : LiveRequest(std::move(surroundings), id, deadline, std::move(wake)),
      options_(std::move(options)),
      choices_(static_cast<size_t>(options_.num_choices)) {
  for (size_t i = 0; i < choices_.size(); ++i)
    taken_.push_back({.text = TextStream(tokenizer, options_.stop)});
  for (size_t i = 0; i < options_.so_far.size(); ++i) {
    const auto& [tokens, finish] = options_.so_far[i];
    choices_[i].usage = {.num_tokens = static_cast<int32_t>(tokens.size()), .finish = finish};
    for (const TokenId token : tokens) taken_[i].text.push(token);
    taken_[i].text.take();  // the client has it
    taken_[i].num_tokens = choices_[i].usage.num_tokens;
    taken_[i].finished = finish != graph::FinishReason::none;
  }
}

bool Generation::on_token(size_t index, const graph::TokenResult& token, TimePoint now) {
  buffer_bytes_ += sent_bytes(token, options_.logprobs);
  if (buffer_bytes_ > options_.buffer_bytes_max) {
    set_error(make_error(ErrorCode::overloaded,
                         "the client does not keep up: more than {} KiB of results wait for it, so "
                         "the request was ended",
                         options_.buffer_bytes_max >> 10));
    return false;
  }
  Choice& choice = choices_[index];
  if (!choice.first_at) {
    choice.first_at = now;
    choice.usage.to_first_token = now - admitted_;
  }
  ++choice.usage.num_tokens;
  choice.usage.first_to_last = now - *choice.first_at;
  choice.usage.finish = choice.finish = token.finish;
  choice.text_bytes = token.text_bytes;
  choice.tokens.push_back(token.token);
  if (options_.logprobs) choice.logprobs.push_back({token.logprob, token.top_logprobs});
  surroundings_.tally->on_token(now);
  return true;
}

Update Generation::take() {
  struct News {
    std::vector<TokenId> tokens;
    std::vector<TokenLogprobs> logprobs;
    graph::FinishReason finish;
    int64_t text_bytes;
  };
  Update update;
  std::vector<News> news;
  {
    const std::lock_guard lock(mutex_);
    for (Choice& choice : choices_)
      news.push_back({std::exchange(choice.tokens, {}), std::exchange(choice.logprobs, {}),
                      choice.finish, choice.text_bytes});
    buffer_bytes_ = 0;
    if (end_ && !std::exchange(end_taken_, true)) {
      if (end_->ok()) {
        Usage usage{.num_prompt_tokens = options_.num_prompt_tokens, .choices = {}};
        for (const Choice& choice : choices_) usage.choices.push_back(choice.usage);
        update.end = std::move(usage);
      } else {
        update.end = end_->error();
      }
    }
    bool any = update.end.has_value();
    for (const News& choice : news) any |= !choice.tokens.empty();
    awake_ = any;
  }
  for (size_t i = 0; i < news.size(); ++i) {
    Taken& taken = taken_[i];
    if (news[i].tokens.empty() || taken.finished) continue;
    Delta delta{.request = id(),
                .choice = static_cast<int32_t>(i),
                .first_index = taken.num_tokens,
                .tokens = std::move(news[i].tokens),
                .text = {},
                .logprobs = std::move(news[i].logprobs),
                .finish = news[i].finish};
    for (const TokenId token : delta.tokens) taken.text.push(token);
    taken.num_tokens += static_cast<int32_t>(delta.tokens.size());
    taken.finished = delta.finish != graph::FinishReason::none;
    if (taken.finished) taken.text.finish(news[i].text_bytes);
    delta.text = taken.text.take();
    update.deltas.push_back(std::move(delta));
  }
  return update;
}

int64_t Generation::num_tokens_held() {
  const std::lock_guard lock(mutex_);
  int64_t held = 0;
  for (const Choice& choice : choices_)
    if (choice.usage.finish == graph::FinishReason::none)
      held += options_.num_prompt_tokens + choice.usage.num_tokens;
  return end_ ? 0 : held;
}

}  // namespace chainpump::gateway
