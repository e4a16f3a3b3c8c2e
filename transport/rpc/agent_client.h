// The caller's side of NodeAgent (schemas/control.capnp). Thread rule: transport/rpc/rpc_thread.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

class AgentClient {
 public:
  /// As RankClient.
  AgentClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect);
  ~AgentClient();
  AgentClient(const AgentClient&) = delete;
  AgentClient& operator=(const AgentClient&) = delete;

  void hello(Duration deadline, Callback<HelloReply> callback);
  /// This connection is of the coordinator's term.
  void lead(uint64_t term, Duration deadline, Callback<Ok> callback);
  /// The path where the new rank listens.
  void spawn(uint32_t rank, uint32_t run, Duration deadline, Callback<std::string> callback);
  void kill(uint32_t rank, Duration deadline, Callback<Ok> callback);
  /// `on_exit` for every rank that ends from now on; the callback comes when that ends.
  void exits(std::function<void(uint32_t rank, uint32_t run, std::string how)> on_exit,
             Callback<Ok> callback);
  void list(Duration deadline, Callback<std::vector<AgentProcess>> callback);
  void beat(Duration deadline, Callback<Ok> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
