// The process's UCX library, set up explicitly: which transports, which network devices, no signal
// handlers, no remote writes over TCP. Create one per process, at the start and after any fork, and
// share it among the links; each link has a worker of its own.
//
// UCX over TCP authenticates nobody: a peer that speaks its protocol may abort this process
// (SECURITY.md, door.h). Bind listeners to the loopback or to a network that the operator trusts.
// Any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

struct ucp_context;

namespace chainpump::transport {

enum class TransportKind : uint8_t {
  tcp,            // peer death is reported by UCX itself
  shared_memory,  // posix and cma; one machine; the connection's TCP socket tells of a death
};
std::string_view to_string(TransportKind kind);

struct UcxContextOptions {
  TransportKind kind = TransportKind::tcp;
  std::string net_devices = "lo";  // as UCX_NET_DEVICES
};

class UcxContext {
 public:
  /// Sets UCX_* variables of this process's environment that were not set before (UCX reads part of
  /// its settings only there), and for shared memory two that must be as they are
  /// (unnamed_memory.h): call it before other threads read the environment. internal if UCX cannot
  /// start; no_room if shared memory has none.
  static Result<std::shared_ptr<UcxContext>> create(const UcxContextOptions& options);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  ucp_context* handle() const { return handle_; }
  TransportKind kind() const { return kind_; }
  /// Bodies up to this many bytes go eagerly, with one copy at the receiver; larger ones by
  /// rendezvous, straight into its slot.
  size_t eager_bytes_max() const;
  /// The UCX_* variables that create() sets, and their values; to run a peer with the same.
  static std::vector<std::pair<std::string, std::string>> environment(TransportKind kind);
  /// "1.13.1", of the library that runs.
  static std::string library_version();

 private:
  UcxContext(ucp_context* handle, TransportKind kind) : handle_(handle), kind_(kind) {}
  ucp_context* handle_;
  TransportKind kind_;
};

}  // namespace chainpump::transport
