// A node's side of Cluster (schemas/control.capnp). Thread rule: transport/rpc/rpc_thread.h.
#pragma once

#include <functional>
#include <memory>

#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

class ClusterClient {
 public:
  /// As RankClient.
  ClusterClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect);
  ~ClusterClient();
  ClusterClient(const ClusterClient&) = delete;
  ClusterClient& operator=(const ClusterClient&) = delete;

  void hello(Duration deadline, Callback<HelloReply> callback);
  void join(const NodeInfo& node, Duration deadline, Callback<Ok> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
