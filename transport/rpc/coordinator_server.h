// The coordinator's side of the control protocol (Coordinator in schemas/control.capnp). No header
// of the RPC library shows.
//
// Thread rule: run() in one thread, where the handler is called; everything else in any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/step_trace.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/move_types.h"
#include "transport/rpc/reply.h"

namespace chainpump::transport::rpc {

class CoordinatorHandler {
 public:
  virtual ~CoordinatorHandler() = default;
  virtual void on_stats(Reply<std::vector<RankStats>> reply) = 0;
  /// Answered when the server is told that it has stopped.
  virtual void on_stop() = 0;
  virtual void on_beat(Reply<Ok> reply) = 0;
  /// `progress` may be called on any thread until the reply is.
  virtual void on_move(uint32_t rank, OnMoveProgress progress, Reply<Ok> reply) = 0;
  virtual void on_change(ServiceSpec spec, OnMoveProgress progress, Reply<Ok> reply) = 0;
  virtual void on_trace(uint32_t rank, uint64_t since, Reply<StepEvents> reply) = 0;
};

class CoordinatorServer {
 public:
  explicit CoordinatorServer(CoordinatorHandler& handler);
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  /// Serves until set_stopped(), whose news is still sent, or says why it cannot.
  Status run(UniqueFd listener);

  void set_progress(uint32_t rank, int64_t bytes_done, int64_t bytes_total);
  /// Again when a lane's address is another: whoever watches is told the latest.
  void set_serving(std::string numerics_id, std::vector<LaneAddress> lanes);
  void set_lanes(std::vector<LaneNews> lanes);
  void set_failed(Error why);
  void set_stopped();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::transport::rpc
