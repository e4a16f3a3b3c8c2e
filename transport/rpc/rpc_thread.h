// The thread that all control clients of a process share: it runs the RPC library's event loop. No
// header of that library shows.
//
// Thread rule of every client on it: methods may be called from any thread and return at once.
// Callbacks run on the RPC thread, one at a time; they must be short and must not block. Each
// callback is called exactly once per call, also when the deadline passes, the connection ends, or
// the client is destroyed.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::transport::rpc {

template <typename T>
using Callback = std::function<void(Result<T>)>;

/// Release and commit of this program, e.g. "0.1.0+87c66a2": what `hello` compares.
std::string build_name();

/// Its end drops every connection that is left, which answers their calls with `cancelled`; clients
/// may outlive it.
class RpcThread {
 public:
  /// `at_start`, unless empty, runs first of all in the new thread. no_room if the system refuses
  /// the thread, or the descriptors of its event loop.
  static Result<RpcThread> create(const std::function<void()>& at_start = {});
  ~RpcThread();
  RpcThread(RpcThread&&) noexcept = default;
  RpcThread& operator=(RpcThread&&) = delete;

  struct Impl;
  const std::shared_ptr<Impl>& impl() const { return impl_; }  // for the clients

 private:
  explicit RpcThread(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace chainpump::transport::rpc
