#include "gateway/local_service.h"

#include <utility>

namespace chainpump::gateway {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(100);

/// A client in this process takes all there is, so that only what it prints to can be slow: what
/// waits is then bounded by the context, not by us.
CoreOptions local_options() { return {.buffer_bytes_max = size_t{1} << 30}; }

/// The engine's threads ring, one thread waits.
class Bell {
 public:
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    changed_.notify_one();
  }
  void wait(Duration patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

class LocalGenerating final : public Generating {
 public:
  LocalGenerating(std::shared_ptr<Generation> generation, std::shared_ptr<Bell> bell)
      : generation_(std::move(generation)), bell_(std::move(bell)) {}
  ~LocalGenerating() override { generation_->cancel(); }
  uint64_t seed() const override { return generation_->seed(); }
  Update next(Duration patience) override {
    Update update = generation_->take();
    if (!update.empty()) return update;
    bell_->wait(patience);
    return generation_->take();
  }
  void cancel() override { generation_->cancel(); }

 private:
  std::shared_ptr<Generation> generation_;
  std::shared_ptr<Bell> bell_;
};

class LocalScored final : public Scored {
 public:
  LocalScored(std::shared_ptr<Scoring> scoring, std::shared_ptr<Bell> bell)
      : scoring_(std::move(scoring)), bell_(std::move(bell)) {}
  ~LocalScored() override { scoring_->cancel(); }
  Result<Scores> wait(Duration patience) override {
    if (auto answer = scoring_->take()) return std::move(*answer);
    bell_->wait(patience);
    if (auto answer = scoring_->take()) return std::move(*answer);
    return make_error(ErrorCode::deadline_exceeded, "no scores within {:.3g} s",
                      to_seconds(patience));
  }

 private:
  std::shared_ptr<Scoring> scoring_;
  std::shared_ptr<Bell> bell_;
};

}  // namespace

LocalService::LocalService(std::unique_ptr<actors::Runtime> runtime, PromptEncoder encoder,
                           DeploymentInfo info)
    : runtime_(std::move(runtime)),
      engine_(*runtime_),
      core_(engine_, std::move(encoder), std::move(info), local_options(), steady_clock()),
      ticker_([this] { tick_until_stopped(); }) {}

LocalService::~LocalService() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  ticker_.join();
  runtime_->stop();
}

void LocalService::tick_until_stopped() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kTick, [this] { return stopping_; })) {
    lock.unlock();
    core_.tick();
    lock.lock();
  }
}

Status LocalService::wait_ready(Duration patience) {
  const Status ready = runtime_->wait_ready(patience);
  if (ready.ok())
    core_.set_ready("every stage is ready");
  else if (ready.error().code != ErrorCode::deadline_exceeded)
    core_.set_failed(ready.error());
  return ready;
}

Result<std::unique_ptr<Generating>> LocalService::generate(const GenerateRequest& request) {
  auto bell = std::make_shared<Bell>();
  ASSIGN_OR_RETURN(std::shared_ptr<Generation> generation,
                   core_.generate(request, [bell] { bell->ring(); }));
  return std::unique_ptr<Generating>(
      std::make_unique<LocalGenerating>(std::move(generation), std::move(bell)));
}

Result<std::unique_ptr<Scored>> LocalService::score(const ScoreRequest& request) {
  auto bell = std::make_shared<Bell>();
  ASSIGN_OR_RETURN(std::shared_ptr<Scoring> scoring,
                   core_.score(request, [bell] { bell->ring(); }));
  return std::unique_ptr<Scored>(
      std::make_unique<LocalScored>(std::move(scoring), std::move(bell)));
}

Result<StatusReport> LocalService::status(Duration patience) {
  StatusReport report = core_.status();
  ASSIGN_OR_RETURN(report.stages, core_.stages(patience));
  return report;
}

}  // namespace chainpump::gateway
