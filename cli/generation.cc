#include "cli/generation.h"

namespace chainpump::cli {
namespace {

constexpr Duration kPatience = std::chrono::seconds(10);  // for news; then it is asked again

/// Takes what an update brings; the text that it adds.
std::string take(gateway::Update& update, Generated& out) {
  std::string text;
  for (gateway::Delta& delta : update.deltas) {
    out.token_ids.insert(out.token_ids.end(), delta.tokens.begin(), delta.tokens.end());
    out.finish = delta.finish;
    text += delta.text;
  }
  out.text += text;
  return text;
}

}  // namespace

double Generated::tpot_ms() const {
  return token_ids.size() < 2 ? 0
                              : to_ms(first_to_last) / static_cast<double>(token_ids.size() - 1);
}

double Generated::tokens_per_second() const { return tpot_ms() > 0 ? 1e3 / tpot_ms() : 0; }

/// Makes a generation known to interrupt() for as long as it runs.
class Generation::Running {
 public:
  explicit Running(Generation& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    owner_.running_ = true;
    owner_.interrupted_ = false;
  }
  ~Running() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.running_ = false;
    owner_.generating_ = nullptr;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  void admitted(gateway::Generating& generating) {
    const std::lock_guard lock(owner_.mutex_);
    owner_.generating_ = &generating;
    if (owner_.interrupted_) generating.cancel();
  }

 private:
  Generation& owner_;
};

Result<Generated> Generation::run(std::vector<TokenId> prompt,
                                  const graph::SamplingParams& sampling,
                                  const std::function<bool(std::string_view)>& show) {
  std::unique_ptr<gateway::Generating> generating;
  Running running(*this);
  gateway::GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling = sampling;
  request.seed = sampling.seed;
  ASSIGN_OR_RETURN(generating, service_.generate(request));
  running.admitted(*generating);

  Generated out;
  bool taken = true;
  while (true) {
    gateway::Update update = generating->next(kPatience);
    const std::string text = take(update, out);
    if (!text.empty() && taken) {
      taken = show(text);
      if (!taken) interrupt();
    }
    if (!update.end) continue;
    if (!update.end->ok()) return update.end->error();
    const gateway::ChoiceUsage& usage = (*update.end)->choices.front();
    out.to_first_token = usage.to_first_token;
    out.first_to_last = usage.first_to_last;
    return out;
  }
}

bool Generation::interrupt() {
  const std::lock_guard lock(mutex_);
  if (!running_) return false;
  interrupted_ = true;
  if (generating_ != nullptr) generating_->cancel();
  return true;
}

}  // namespace chainpump::cli
