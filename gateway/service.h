// The gateway as its clients see it, whether it is in this process or behind a socket: what `run`,
// `score` and `status` are written against. No RPC header shows.
//
// Thread rule: any thread, but one at a time for each Generating's next() and each Scored's wait().
// Every wait has its limit. A service must outlive what it hands out.
#pragma once

#include <memory>

#include "gateway/types.h"

namespace chainpump::gateway {

/// A client's end of a generation; letting go of it cancels the request.
class Generating {
 public:
  virtual ~Generating() = default;
  virtual uint64_t seed() const = 0;
  /// Waits until there is news, and takes it. An empty update: not within `patience`. After the
  /// end there is nothing to wait for.
  virtual Update next(Duration patience) = 0;
  /// The end comes with `cancelled`, within a second even if no stage answers; unless it has come.
  /// Any thread.
  virtual void cancel() = 0;
};

/// The same for log-probabilities.
class Scored {
 public:
  virtual ~Scored() = default;
  /// deadline_exceeded if the answer is not there within `patience`; it may still come. Once it has
  /// come it is gone.
  virtual Result<Scores> wait(Duration patience) = 0;
};

class Service {
 public:
  virtual ~Service() = default;
  virtual const DeploymentInfo& deployment() const = 0;
  /// Ok once requests can be served; else why they cannot be, at once if that is known.
  virtual Status wait_ready(Duration patience) = 0;

  // What each may answer stands with Core.
  virtual Result<TokenIds> tokenize(const Prompt& prompt) = 0;
  virtual Result<std::unique_ptr<Generating>> generate(const GenerateRequest& request) = 0;
  virtual Result<std::unique_ptr<Scored>> score(const ScoreRequest& request) = 0;
  /// With the stages' counters once it is ready.
  virtual Result<StatusReport> status(Duration patience) = 0;
  /// Whether it is ready, and if not, why; answered without asking a stage.
  virtual Result<Readiness> readiness(Duration patience) = 0;
  /// What a rank did step by step, a part at a time: as Runtime::trace.
  virtual Result<StepEvents> trace(RankId rank, uint64_t since, Duration patience) = 0;
};

}  // namespace chainpump::gateway
