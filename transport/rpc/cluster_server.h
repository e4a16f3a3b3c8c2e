// Where machines join: the cluster's side of Cluster (schemas/control.capnp). No header of the RPC
// library shows.
//
// Thread rule: run() in one thread, where the handler is called; stop() in any.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::transport::rpc {

class ClusterHandler {
 public:
  virtual ~ClusterHandler() = default;
  /// Whose certificate says that it is `node.name`, and whose words have been checked. An error is
  /// the answer; else it is a node until on_leave() of the same number.
  virtual Status on_join(uint64_t member, const NodeInfo& node) = 0;
  virtual void on_leave(uint64_t member) = 0;
};

class ClusterServer {
 public:
  explicit ClusterServer(ClusterHandler& handler);
  ~ClusterServer();
  ClusterServer(const ClusterServer&) = delete;
  ClusterServer& operator=(const ClusterServer&) = delete;

  /// Serves until stop(); or returns why it cannot.
  Status run(UniqueFd listener, const Admission& admission);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// invalid_argument: what a node says of itself makes no sense; it is named `name`.
Status check(const NodeInfo& node, const std::string& name);

}  // namespace chainpump::transport::rpc
