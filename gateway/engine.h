// What the gateway asks of the runtime: a seam, so that its own rules are tested without stages.
// Thread rule, and what callbacks may do: as actors/runtime.h.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "actors/runtime.h"

namespace chainpump::gateway {

class Engine {
 public:
  virtual ~Engine() = default;
  virtual RequestId submit(actors::SequenceRequest request, Duration timeout,
                           std::vector<actors::SequenceCallbacks> callbacks) = 0;
  virtual void cancel(RequestId request) = 0;
  virtual Result<actors::RuntimeReport> report(Duration timeout) = 0;
  virtual graph::HealthReport health() = 0;
  virtual Result<StepEvents> trace(RankId rank, uint64_t since, Duration timeout) = 0;
  /// As Runtime::planned().
  virtual std::shared_ptr<const actors::Planned> planned() { return nullptr; }
};

class RuntimeEngine final : public Engine {
 public:
  explicit RuntimeEngine(actors::Runtime& runtime) : runtime_(runtime) {}
  RequestId submit(actors::SequenceRequest request, Duration timeout,
                   std::vector<actors::SequenceCallbacks> callbacks) override {
    return runtime_.submit(std::move(request), timeout, std::move(callbacks));
  }
  void cancel(RequestId request) override { runtime_.cancel(request); }
  Result<actors::RuntimeReport> report(Duration timeout) override {
    return runtime_.report(timeout);
  }
  graph::HealthReport health() override { return runtime_.health(); }
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration timeout) override {
    return runtime_.trace(rank, since, timeout);
  }
  std::shared_ptr<const actors::Planned> planned() override { return runtime_.planned(); }

 private:
  actors::Runtime& runtime_;
};

}  // namespace chainpump::gateway
