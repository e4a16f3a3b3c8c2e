// The node agent's side of the control protocol (NodeAgent in schemas/control.capnp). No header of
// the RPC library shows.
//
// Thread rule: run() in one thread, where the handler is called; the others in any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::transport::rpc {

class AgentHandler {
 public:
  virtual ~AgentHandler() = default;
  /// Returns the path where the new rank listens.
  virtual Result<std::string> on_spawn(uint32_t rank, uint32_t run) = 0;
  virtual void on_kill(uint32_t rank) = 0;
  virtual std::vector<AgentProcess> on_list() = 0;
};

class AgentServer {
 public:
  explicit AgentServer(AgentHandler& handler);
  ~AgentServer();
  AgentServer(const AgentServer&) = delete;
  AgentServer& operator=(const AgentServer&) = delete;

  /// Serves until stop(), or returns why it cannot.
  Status run(UniqueFd listener, const Admission& admission = {});
  void stop();
  /// A rank has ended.
  void tell_exit(uint32_t rank, uint32_t run, std::string how);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::transport::rpc
