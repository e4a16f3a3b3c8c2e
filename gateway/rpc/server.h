// The gateway's door for Cap'n Proto RPC (schemas/chainpump.capnp) on a listening socket: it runs
// the RPC library's event loop in the calling thread and serves every connection there. What may
// take long (a large prompt, the stages' counters) goes to threads of its own. No header of the
// library shows.
//
// Thread rule: one thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>

#include "base/unique_fd.h"
#include "gateway/core.h"

namespace chainpump::gateway::rpc {

struct ServerOptions {
  uid_t uid = 0;  // whose processes may use it, besides root's
  int32_t connections_max = 256;
  // Of one connection:
  int32_t requests_max = 64;       // generations and scores that have not ended
  int32_t generations_max = 1024;  // that it has not dropped, ended or not
  int32_t sessions_max = 8;        // and as many operators
  int32_t watches_max = 8;
  uint32_t unreleased_calls_max = 1024;
  /// Called in the loop about ten times a second, as Core::tick() is; false ends run().
  std::function<bool()> on_tick;
};

class Server {
 public:
  /// Takes a socket that listens. `core` must outlive this.
  Server(UniqueFd listener, Core& core, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Serves until on_tick says false, or an error of the socket. What has ended by then is still
  /// told to its clients, within a second; what has not is cancelled.
  Status run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::gateway::rpc
