// The gateway inside the process that uses it: `run` and `score` without a service. One thread that
// ticks; results are taken, and turned into text, by whoever waits for them.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "gateway/core.h"
#include "gateway/service.h"

namespace chainpump::gateway {

/// Says once when a runtime is ready or why it will not be, and notices when it ends.
class LocalService final : public Service {
 public:
  /// Takes a runtime that was just started.
  LocalService(std::unique_ptr<actors::Runtime> runtime, PromptEncoder encoder,
               DeploymentInfo info);
  /// Ends what runs, then the runtime.
  ~LocalService() override;

  const DeploymentInfo& deployment() const override { return *deployment_; }
  Status wait_ready(Duration patience) override;
  Result<TokenIds> tokenize(const Prompt& prompt) override { return core_.tokenize(prompt); }
  Result<std::unique_ptr<Generating>> generate(const GenerateRequest& request) override;
  Result<std::unique_ptr<Scored>> score(const ScoreRequest& request) override;
  Result<StatusReport> status(Duration patience) override;
  Result<Readiness> readiness(Duration) override { return core_.readiness(); }
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration patience) override {
    return core_.trace(rank, since, patience);
  }

 private:
  void tick_until_stopped();

  std::unique_ptr<actors::Runtime> runtime_;
  RuntimeEngine engine_;
  Core core_;
  const std::shared_ptr<const DeploymentInfo> deployment_ =
      core_.deployment();  // its own runtime's
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread ticker_;
};

}  // namespace chainpump::gateway
