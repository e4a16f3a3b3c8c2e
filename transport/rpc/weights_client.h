// The side of Weights (schemas/weights.capnp) that lacks a file. Thread rule:
// transport/rpc/rpc_thread.h. What comes is not checked here, but for its size.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

class WeightsClient {
 public:
  /// As RankClient.
  WeightsClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect);
  ~WeightsClient();
  WeightsClient(const WeightsClient&) = delete;
  WeightsClient& operator=(const WeightsClient&) = delete;

  void hello(Duration deadline, Callback<HelloReply> callback);
  void manifest(const ModelIdentity& model, Duration deadline,
                Callback<std::vector<std::byte>> callback);
  void have(const ModelIdentity& model, Duration deadline, Callback<std::vector<uint8_t>> callback);
  void read(const ModelIdentity& model, uint32_t piece, Duration deadline,
            Callback<std::vector<std::byte>> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
