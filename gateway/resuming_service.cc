#include "gateway/resuming_service.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

namespace chainpump::gateway {
namespace {

using Line = ResumingService::Line;

constexpr Duration kTryAgain = std::chrono::milliseconds(100);

/// Whether another attempt may go better.
bool may_pass(const Error& error) {
  return is_gone(error) || error.code == ErrorCode::deadline_exceeded ||
         error.code == ErrorCode::overloaded;
}

/// What whoever asked is told of an error that does not pass.
Error as_end(const Error& error) { return error.code == ErrorCode::not_found ? gone() : error; }

/// Of an attempt that failed: the end, or nothing if another may go better, after a while in which
/// `patience` is used up if the attempt itself has not done so.
std::optional<Error> end_of_attempt(const Line& line, TimePoint lost_since, const Error& error,
                                    Duration patience) {
  if (!may_pass(error)) return as_end(error);
  if (line.clock.now() - lost_since > line.away_max)
    return make_error(ErrorCode::disconnected, "the service did not come back within {:.3g} s: {}",
                      to_seconds(line.away_max), error.message);
  if (error.code != ErrorCode::deadline_exceeded)
    std::this_thread::sleep_for(std::min(patience, kTryAgain));
  return std::nullopt;
}

/// What is asked of one gateway after the other, and how far it has come.
class Asked {
 public:
  Asked(std::shared_ptr<Line> line, GenerateRequest request)
      : line_(std::move(line)),
        request_(std::move(request)),
        until_(line_->clock.now() + request_.deadline),
        so_far_(static_cast<size_t>(std::max(0, request_.num_choices))) {}

  Result<std::unique_ptr<Generating>> ask(Service& service) {
    GenerateRequest request = request_;
    request.deadline = std::max(until_ - line_->clock.now(), Duration(1));
    const bool has_begun = std::any_of(so_far_.begin(), so_far_.end(),
                                       [](const ChoiceSoFar& c) { return !c.tokens.empty(); });
    if (has_begun) request.so_far = so_far_;
    Result<std::unique_ptr<Generating>> generating = service.generate(request);
    if (generating.ok()) request_.seed = (*generating)->seed();
    return generating;
  }
  void note(const Update& update) {
    for (const Delta& delta : update.deltas) {
      ChoiceSoFar& choice = so_far_[static_cast<size_t>(delta.choice)];
      choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
      choice.finish = delta.finish;
    }
  }
  uint64_t seed() const { return *request_.seed; }

 private:
  const std::shared_ptr<Line> line_;
  GenerateRequest request_;
  const TimePoint until_;
  std::vector<ChoiceSoFar> so_far_;
};

class ResumingGenerating final : public Generating {
 public:
  ResumingGenerating(std::shared_ptr<Line> line, Asked asked, std::shared_ptr<Service> service,
                     std::unique_ptr<Generating> generating)
      : line_(std::move(line)),
        asked_(std::move(asked)),
        service_(std::move(service)),
        generating_(std::move(generating)),
        seed_(asked_.seed()) {}

  uint64_t seed() const override { return seed_; }

  Update next(Duration patience) override {
    if (ended_) return {};
    if (!is_flowing()) return go_on(patience);
    Update update = flow()->next(patience);
    asked_.note(update);
    if (!update.end) return update;
    if (update.end->ok() || !is_gone(update.end->error())) {
      ended_ = true;
      return update;
    }
    lost_since_ = line_->clock.now();
    set_flow(nullptr);
    update.end.reset();
    return update.empty() ? go_on(patience) : update;
  }

  void cancel() override {
    cancelled_ = true;
    if (const auto flowing = flow()) flowing->cancel();
  }

 private:
  std::shared_ptr<Generating> flow() {
    const std::lock_guard lock(mutex_);
    return generating_;
  }
  bool is_flowing() { return flow() != nullptr; }
  void set_flow(std::shared_ptr<Generating> generating) {
    {
      const std::lock_guard lock(mutex_);
      generating_.swap(generating);
    }
    if (cancelled_)
      if (const auto flowing = flow()) flowing->cancel();
  }

  Update end_with(Error error) {
    ended_ = true;
    Update update;
    update.end = std::move(error);
    return update;
  }

  Update go_on(Duration patience) {
    if (cancelled_) return end_with(make_error(ErrorCode::cancelled, "the request was cancelled"));
    const Status found = find_gateway(patience);
    if (found.ok()) return {};
    const auto end = end_of_attempt(*line_, lost_since_, found.error(), patience);
    return end ? end_with(*end) : Update{};
  }

  Status find_gateway(Duration patience) {
    ASSIGN_OR_RETURN(std::shared_ptr<Service> service, line_->after(service_, patience));
    const Status ready = service->wait_ready(patience);
    Result<std::unique_ptr<Generating>> generating =
        ready.ok() ? asked_.ask(*service) : Result<std::unique_ptr<Generating>>(ready.error());
    if (!generating.ok()) {
      if (is_gone(generating.error())) service_ = std::move(service);
      return generating.error();
    }
    service_ = std::move(service);
    set_flow(*std::move(generating));
    return ok_status();
  }

  const std::shared_ptr<Line> line_;
  Asked asked_;
  std::shared_ptr<Service> service_;  // outlives what it hands out
  std::mutex mutex_;
  std::shared_ptr<Generating> generating_;  // null: lost
  const uint64_t seed_;
  std::atomic<bool> cancelled_ = false;
  TimePoint lost_since_{};
  bool ended_ = false;
};

class ResumingScored final : public Scored {
 public:
  ResumingScored(std::shared_ptr<Line> line, ScoreRequest request, std::shared_ptr<Service> service,
                 std::unique_ptr<Scored> scored)
      : line_(std::move(line)),
        request_(std::move(request)),
        until_(line_->clock.now() + request_.deadline),
        service_(std::move(service)),
        scored_(std::move(scored)) {}

  Result<Scores> wait(Duration patience) override {
    if (scored_) {
      Result<Scores> scores = scored_->wait(patience);
      if (scores.ok() || !is_gone(scores.error())) return scores;
      lost_since_ = line_->clock.now();
      scored_.reset();
    }
    const Status again = ask_again(patience);
    if (!again.ok())
      if (auto end = end_of_attempt(*line_, lost_since_, again.error(), patience)) return *end;
    return make_error(ErrorCode::deadline_exceeded, "no scores within {:.3g} s",
                      to_seconds(patience));
  }

 private:
  Status ask_again(Duration patience) {
    ASSIGN_OR_RETURN(std::shared_ptr<Service> service, line_->after(service_, patience));
    RETURN_IF_ERROR(service->wait_ready(patience));
    ScoreRequest request = request_;
    request.deadline = std::max(until_ - line_->clock.now(), Duration(1));
    Result<std::unique_ptr<Scored>> scored = service->score(request);
    service_ = std::move(service);
    if (!scored.ok()) return scored.error();
    scored_ = *std::move(scored);
    return ok_status();
  }

  const std::shared_ptr<Line> line_;
  const ScoreRequest request_;
  const TimePoint until_;
  std::shared_ptr<Service> service_;
  std::unique_ptr<Scored> scored_;
  TimePoint lost_since_{};
};

}  // namespace

std::shared_ptr<Service> Line::now() {
  const std::lock_guard lock(mutex_);
  return now_;
}

Result<std::shared_ptr<Service>> Line::after(const std::shared_ptr<Service>& lost,
                                             Duration patience) {
  const std::lock_guard connecting(connecting_);
  if (std::shared_ptr<Service> present = now(); present != lost) return present;
  ASSIGN_OR_RETURN(std::shared_ptr<Service> next, connect_(patience));
  const DeploymentInfo& theirs = next->deployment();
  // Its graph file may have been changed to another while it ran (`chainpump apply`).
  if (theirs.build != deployment.build || theirs.graph_name != deployment.graph_name ||
      theirs.plan.kv.type != deployment.plan.kv.type ||
      theirs.plan.exact_activations != deployment.plan.exact_activations ||
      theirs.plan.model_path != deployment.plan.model_path || theirs.isa != deployment.isa)
    return make_error(ErrorCode::invalid_argument,
                      "the service that came back is another: its build, graph, model or "
                      "instruction set is not what it was");
  const std::lock_guard lock(mutex_);
  now_ = next;
  return next;
}

ResumingService::ResumingService(std::shared_ptr<Service> first, Connect connect, Duration away_max,
                                 const Clock& clock)
    : line_(std::make_shared<Line>(std::move(first), std::move(connect), away_max, clock)) {}

template <typename Call>
std::invoke_result_t<Call, const std::shared_ptr<Service>&> ResumingService::called(Call call) {
  std::shared_ptr<Service> service = line_->now();
  auto result = call(service);
  const TimePoint until = line_->clock.now() + line_->away_max;
  while (!result.ok() && is_gone(result.error()) && line_->clock.now() < until) {
    const auto next = line_->after(service, until - line_->clock.now());
    if (!next.ok() && is_gone(next.error())) continue;
    if (!next.ok()) return as_end(next.error());
    service = *next;
    // It was there, and will be: so that nobody is told that it loads.
    if (const Status ready = service->wait_ready(until - line_->clock.now()); !ready.ok()) {
      result = ready.error();
      continue;
    }
    result = call(service);
  }
  return result;
}

Status ResumingService::wait_ready(Duration patience) {
  return called([&](const auto& service) { return service->wait_ready(patience); });
}

Result<TokenIds> ResumingService::tokenize(const Prompt& prompt) {
  return called([&](const auto& service) { return service->tokenize(prompt); });
}

Result<std::unique_ptr<Generating>> ResumingService::generate(const GenerateRequest& request) {
  Asked asked(line_, request);
  std::shared_ptr<Service> used;
  ASSIGN_OR_RETURN(std::unique_ptr<Generating> generating, called([&](const auto& service) {
                     used = service;
                     return asked.ask(*service);
                   }));
  return std::unique_ptr<Generating>(std::make_unique<ResumingGenerating>(
      line_, std::move(asked), std::move(used), std::move(generating)));
}

Result<std::unique_ptr<Scored>> ResumingService::score(const ScoreRequest& request) {
  std::shared_ptr<Service> used;
  ASSIGN_OR_RETURN(std::unique_ptr<Scored> scored, called([&](const auto& service) {
                     used = service;
                     return service->score(request);
                   }));
  return std::unique_ptr<Scored>(
      std::make_unique<ResumingScored>(line_, request, std::move(used), std::move(scored)));
}

Result<Readiness> ResumingService::readiness(Duration patience) {
  return called([&](const auto& service) { return service->readiness(patience); });
}

Result<StatusReport> ResumingService::status(Duration patience) {
  return called([&](const auto& service) { return service->status(patience); });
}

Result<StepEvents> ResumingService::trace(RankId rank, uint64_t since, Duration patience) {
  return called([&](const auto& service) { return service->trace(rank, since, patience); });
}

}  // namespace chainpump::gateway
