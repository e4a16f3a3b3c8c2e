// The caller's side of Coordinator (schemas/control.capnp). Thread rule:
// transport/rpc/rpc_thread.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/step_trace.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/move_types.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

struct DeploymentCallbacks {
  std::function<void(uint32_t rank, int64_t bytes_done, int64_t bytes_total)> on_progress;
  /// Once it serves, and again when a lane's address is another. Values between may be skipped.
  std::function<void(std::string numerics_id, std::vector<LaneAddress> lanes)> on_serving;
  /// What has become of each lane, in order. Values between may be skipped.
  std::function<void(std::vector<LaneNews> lanes)> on_lanes;
  std::function<void(Error why)> on_ended;  // failed; cancelled: stopped
};

class CoordinatorClient {
 public:
  /// As RankClient.
  CoordinatorClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect);
  ~CoordinatorClient();
  CoordinatorClient(const CoordinatorClient&) = delete;
  CoordinatorClient& operator=(const CoordinatorClient&) = delete;

  void hello(Duration deadline, Callback<HelloReply> callback);
  /// The callback comes when the connection ends.
  void watch(DeploymentCallbacks callbacks, Callback<Ok> callback);
  void stats(Duration deadline, Callback<std::vector<RankStats>> callback);
  void trace(uint32_t rank, uint64_t since, Duration deadline, Callback<StepEvents> callback);
  void stop(Duration deadline, Callback<Ok> callback);
  void beat(Duration deadline, Callback<Ok> callback);
  /// `on_progress` on the RPC thread.
  void move(uint32_t rank, Duration deadline, OnMoveProgress on_progress, Callback<Ok> callback);
  void change(ServiceSpec spec, Duration deadline, OnMoveProgress on_progress,
              Callback<Ok> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
