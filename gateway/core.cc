#include "gateway/core.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/random_bits.h"
#include "base/version.h"

namespace chainpump::gateway {
namespace {

constexpr size_t kEventsKept = 256;

int64_t unix_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

/// Sequences that run or wait.
int32_t max_live(const graph::Plan& plan) {
  return num_lanes(plan) * (plan.max_sequences + plan.max_queued);
}

DeploymentInfo completed(DeploymentInfo info, const PromptEncoder& encoder) {
  info.build = fmt::format("{}+{}", release(), commit());
  info.vocabulary_size = encoder.tokenizer().vocabulary_size();
  info.has_chat_template = encoder.has_chat_template();
  return info;
}

Status check_deadline(Duration deadline) {
  if (deadline > Duration(0) && deadline <= kDeadlineMax) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    "deadline must be above 0 and at most {:.0f} s, not {:.3g} s",
                    to_seconds(kDeadlineMax), to_seconds(deadline));
}

/// The engine looks at the tokens.
Status check_so_far(const GenerateRequest& request) {
  if (request.so_far.empty()) return ok_status();
  if (!request.seed)
    return make_error(ErrorCode::invalid_argument,
                      "a request that goes on needs the seed that it began with");
  if (request.so_far.size() != static_cast<size_t>(request.num_choices))
    return make_error(ErrorCode::invalid_argument,
                      "so_far has {} choices, of n = {}: it needs one for each, or none",
                      request.so_far.size(), request.num_choices);
  return ok_status();
}

/// As few as can be: a sequence that goes on is asked for by itself.
std::vector<actors::SequenceRequest> sequences_of(const GenerateRequest& request,
                                                  actors::SequenceRequest asked) {
  std::vector<actors::SequenceRequest> sequences;
  if (request.so_far.empty()) {
    asked.num_sequences = request.num_choices;
    sequences.push_back(std::move(asked));
    return sequences;
  }
  asked.num_sequences = 1;
  for (const ChoiceSoFar& choice : request.so_far) {
    if (choice.finish == graph::FinishReason::none) {
      asked.generated = choice.tokens;
      sequences.push_back(asked);
    }
    ++asked.sequence_index;
  }
  return sequences;
}

}  // namespace

std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::loading:
      return "loading";
    case Phase::ready:
      return "ready";
    case Phase::failed:
      return "failed";
    case Phase::draining:
      return "draining";
  }
  return "unknown";
}

Error gone() { return make_error(ErrorCode::disconnected, "the service has gone"); }

bool is_gone(const Error& error) {
  return error.code == ErrorCode::disconnected && error.message == gone().message;
}

std::optional<Duration> retry_after(const Error& error) {
  constexpr std::string_view kWords = "; retry after ";
  if (error.code != ErrorCode::overloaded) return std::nullopt;
  const size_t at = error.message.rfind(kWords);
  if (at == std::string::npos) return std::nullopt;
  const double seconds = std::atof(error.message.c_str() + at + kWords.size());
  if (!(seconds >= 0 && seconds <= to_seconds(kDeadlineMax))) return std::nullopt;
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

Core::Core(Engine& engine, PromptEncoder encoder, DeploymentInfo info, const CoreOptions& options,
           const Clock& clock)
    : engine_(engine),
      encoder_(std::move(encoder)),
      options_(options),
      clock_(clock),
      started_(clock.now()),
      admission_(std::make_shared<Admission>(max_live(info.plan), clock)),
      tally_(std::make_shared<Tally>()),
      info_(std::make_shared<const DeploymentInfo>(completed(std::move(info), encoder_))),
      // So that ids of two lives of a gateway are not mistaken for each other.
      last_request_(random_bits() << 32) {
  set_phase(Phase::loading, "the stages load");
}

std::shared_ptr<const DeploymentInfo> Core::deployment() const {
  const std::lock_guard lock(info_mutex_);
  std::shared_ptr<const actors::Planned> planned = engine_.planned();
  if (!planned || planned == planned_) return info_;
  DeploymentInfo info = *info_;
  info.plan = planned->plan;
  info.graph_text = planned->graph_text;
  info_ = std::make_shared<const DeploymentInfo>(std::move(info));
  planned_ = std::move(planned);
  admission_->set_max_live(max_live(info_->plan));
  return info_;
}

Phase Core::phase() const {
  const std::lock_guard lock(mutex_);
  return phase_;
}

Status Core::check_open() const {
  const std::lock_guard lock(mutex_);
  switch (phase_) {
    case Phase::loading:
      return make_error(ErrorCode::overloaded, "the stages still load; retry after 1 s");
    case Phase::ready:
      return ok_status();
    case Phase::failed:
      return *failure_;
    case Phase::draining:
      return make_error(ErrorCode::overloaded,
                        "the service is about to end and takes no new requests");
  }
  return ok_status();
}

Status Core::check(const GenerateRequest& request) const {
  RETURN_IF_ERROR(graph::validate(request.sampling, deployment()->vocabulary_size));
  RETURN_IF_ERROR(check_deadline(request.deadline));
  if (request.num_choices < 1 || request.num_choices > kMaxChoices)
    return make_error(ErrorCode::invalid_argument, "n must be from 1 to {}, not {}", kMaxChoices,
                      request.num_choices);
  if (request.priority < -kPriorityMax || request.priority > kPriorityMax)
    return make_error(ErrorCode::invalid_argument, "priority is {}, must be in [-{}, {}]",
                      request.priority, kPriorityMax, kPriorityMax);
  return check_so_far(request);
}

Status Core::check_length(size_t num_tokens, bool scoring) const {
  const int32_t context_tokens = deployment()->plan.context_tokens;
  const auto room = static_cast<size_t>(context_tokens) + (scoring ? 1 : 0);
  if (num_tokens < room) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    "the prompt has {} tokens, but this deployment serves {} in all (raise "
                    "kv.context or --context, or shorten the prompt)",
                    num_tokens, context_tokens);
}

template <typename T>
Result<std::shared_ptr<T>> Core::refused(Error error) const {
  tally_->on_refused();
  return error;
}

Result<std::shared_ptr<Generation>> Core::generate(const GenerateRequest& request, Wake wake) {
  if (Status open = check_open(); !open.ok()) return refused<Generation>(open.error());
  if (Status good = check(request); !good.ok()) return refused<Generation>(good.error());
  Result<TokenIds> prompt = encoder_.encode(request.prompt);
  if (!prompt.ok()) return refused<Generation>(prompt.error());
  if (Status fits = check_length(prompt->size(), false); !fits.ok())
    return refused<Generation>(fits.error());
  const Result<Tenant> tenant = tenants_.find(request.tenant);
  if (!tenant.ok()) return refused<Generation>(tenant.error());
  const auto num_open = static_cast<int32_t>(
      request.num_choices -
      std::count_if(request.so_far.begin(), request.so_far.end(), [](const ChoiceSoFar& choice) {
        return choice.finish != graph::FinishReason::none;
      }));
  Result<std::vector<Permit>> permits = admission_->admit(num_open);
  if (!permits.ok()) return refused<Generation>(permits.error());

  const uint64_t seed = request.seed ? *request.seed : random_bits();
  const auto num_prompt_tokens = static_cast<int32_t>(prompt->size());
  actors::SequenceRequest asked;
  asked.tenant = tenant->id;
  asked.cache_salt = tenant->cache_salt;
  asked.priority = request.priority;
  asked.sampling = request.sampling;
  asked.sampling.seed = seed;
  asked.prompt = std::move(*prompt);
  GenerationOptions options{.buffer_bytes_max = options_.buffer_bytes_max,
                            .num_choices = request.num_choices,
                            .logprobs = request.sampling.num_top_logprobs >= 0,
                            .seed = seed,
                            .num_prompt_tokens = num_prompt_tokens,
                            .stop = request.sampling.stop,
                            .so_far = request.so_far};
  auto generation = std::make_shared<Generation>(Surroundings{engine_, clock_, tally_}, next_id(),
                                                 request.deadline, std::move(wake),
                                                 encoder_.tokenizer(), std::move(options));
  keep(generation);
  generation->submit(sequences_of(request, std::move(asked)), std::move(*permits));
  return generation;
}

Result<std::shared_ptr<Scoring>> Core::score(const ScoreRequest& request, Wake wake) {
  if (Status open = check_open(); !open.ok()) return refused<Scoring>(open.error());
  if (Status good = check_deadline(request.deadline); !good.ok())
    return refused<Scoring>(good.error());
  for (const TokenIds* ids : {&request.prompt, &request.targets})
    if (const Result<TokenIds> checked = encoder_.encode(*ids); !checked.ok())
      return refused<Scoring>(checked.error());
  const size_t num_tokens = request.prompt.size() + request.targets.size();
  if (Status fits = check_length(num_tokens, true); !fits.ok())
    return refused<Scoring>(fits.error());
  Result<std::vector<Permit>> permits = admission_->admit(1);
  if (!permits.ok()) return refused<Scoring>(permits.error());

  actors::SequenceRequest asked;
  const auto first = static_cast<int32_t>(request.prompt.size()) - 1;
  asked.prompt = request.prompt;
  asked.prompt.insert(asked.prompt.end(), request.targets.begin(), request.targets.end());
  asked.score = {.first_position = first, .full_path = request.full_path};
  auto scoring =
      std::make_shared<Scoring>(Surroundings{engine_, clock_, tally_}, next_id(), request.deadline,
                                std::move(wake), first, request.targets.size());
  keep(scoring);
  std::vector<actors::SequenceRequest> sequences;
  sequences.push_back(std::move(asked));  // a list would copy the prompt
  scoring->submit(std::move(sequences), std::move(*permits));
  return scoring;
}

RequestId Core::next_id() {
  const std::lock_guard lock(mutex_);
  return RequestId(++last_request_);
}

void Core::keep(const std::shared_ptr<LiveRequest>& request) {
  const std::lock_guard lock(mutex_);
  requests_[request->id()] = request;
}

std::vector<std::shared_ptr<LiveRequest>> Core::live() {
  std::vector<std::shared_ptr<LiveRequest>> live;
  const std::lock_guard lock(mutex_);
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (auto request = it->second.lock()) {
      live.push_back(std::move(request));
      ++it;
    } else {
      it = requests_.erase(it);
    }
  }
  return live;
}

StatusReport Core::status() {
  StatusReport report;
  tally_->fill(report, clock_.now());
  report.pid = ::getpid();
  report.uptime = clock_.now() - started_;
  report.num_sequences = admission_->num_live();
  for (const auto& request : live()) report.num_tokens_held += request->num_tokens_held();
  report.readiness = readiness();
  const std::lock_guard lock(mutex_);
  report.phase = phase_;
  report.message = events_.back().message;
  return report;
}

Readiness Core::readiness() const {
  Readiness readiness = engine_.health();
  const std::lock_guard lock(mutex_);
  switch (phase_) {
    case Phase::ready:
      return readiness;
    case Phase::loading:
    case Phase::failed:
    case Phase::draining:
      break;
  }
  readiness.ready = false;
  readiness.why = events_.back().message;
  return readiness;
}

void Core::set_phase(Phase phase, std::string message) {
  phase_ = phase;
  const uint64_t number = events_.empty() ? 1 : events_.back().number + 1;
  if (events_.size() == kEventsKept) events_.pop_front();
  events_.push_back(
      {.number = number, .unix_ms = unix_ms(), .phase = phase, .message = std::move(message)});
}

void Core::set_loading(std::string message) {
  const std::lock_guard lock(mutex_);
  if (phase_ == Phase::loading) events_.back().message = std::move(message);
}

void Core::set_ready(std::string message) {
  const std::lock_guard lock(mutex_);
  if (phase_ == Phase::loading) set_phase(Phase::ready, std::move(message));
}

void Core::set_failed(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = error;
    set_phase(Phase::failed, error.message);
  }
  for (const auto& request : live()) request->abandon(error);
}

void Core::set_draining() {
  const std::lock_guard lock(mutex_);
  if (phase_ == Phase::loading || phase_ == Phase::ready)
    set_phase(Phase::draining, "no new requests are taken");
}

void Core::tick() {
  for (const auto& request : live()) request->expire();
}

void Core::cancel_all() {
  for (const auto& request : live()) request->cancel();
}

std::vector<Event> Core::events_after(uint64_t number) const {
  const std::lock_guard lock(mutex_);
  std::vector<Event> events;
  for (const Event& event : events_)
    if (event.number > number) events.push_back(event);
  return events;
}

}  // namespace chainpump::gateway
