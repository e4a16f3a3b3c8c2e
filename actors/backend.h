// Where a runtime's deployment lives: in this process, or in the processes of a service.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/outcome.h"
#include "actors/runtime.h"
#include "base/step_trace.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/reply.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual void stats(Duration timeout, rpc::Reply<std::vector<rpc::RankStats>> reply) = 0;
  /// Of one rank; as Rank.trace in schemas/control.capnp.
  virtual void trace(RankId rank, uint64_t since, Duration timeout,
                     rpc::Reply<StepEvents> reply) = 0;
  /// Sets an end going; the outcome says when it has stopped.
  virtual void request_stop() = 0;
  /// No callback follows. Not on a thread that calls back.
  virtual void end() = 0;
};

/// The plan's actors in this process. no_room if the system refuses their threads.
Result<std::unique_ptr<Backend>> make_local_backend(const graph::Plan& plan, RuntimeOptions options,
                                                    std::shared_ptr<Outcome> outcome);

/// What the coordinator of the service in `folder` has brought up. not_found: none listens there;
/// no_room.
Result<std::unique_ptr<Backend>> make_service_backend(
    const std::string& folder,
    std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)> on_progress,
    std::shared_ptr<Outcome> outcome);

}  // namespace chainpump::actors
