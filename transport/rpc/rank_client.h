// The caller's side of the control protocol (schemas/control.capnp): a RankClient per rank, all of
// them on one RpcThread, which runs the RPC library's event loop. No header of that library shows.
//
// Thread rule: every method may be called from any thread and returns at once. Callbacks run on the
// RPC thread, one at a time; they must be short and must not block. Each callback is called exactly
// once per call, also when the deadline passes, the connection ends, or the client is destroyed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/step_trace.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"

namespace chainpump::transport::rpc {

template <typename T>
using Callback = std::function<void(Result<T>)>;

/// Release and commit of this program, e.g. "0.1.0+87c66a2": what `hello` compares.
std::string build_name();

/// The thread that all clients share. Its end drops every connection that is left, which answers
/// their calls with `cancelled`; clients may outlive it.
class RpcThread {
 public:
  /// `at_start`, unless empty, runs first of all in the new thread. no_room if the system refuses
  /// the thread, or the descriptors of its event loop.
  static Result<RpcThread> create(const std::function<void()>& at_start = {});
  ~RpcThread();
  RpcThread(RpcThread&&) noexcept = default;
  RpcThread& operator=(RpcThread&&) = delete;

  struct Impl;
  const std::shared_ptr<Impl>& impl() const { return impl_; }  // for RankClient

 private:
  explicit RpcThread(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

/// Where a submitted sequence's results go, in order; both on the RPC thread.
struct ResultCallbacks {
  std::function<void(std::vector<TokenResult>)> on_tokens;
  std::function<void(std::vector<ScoreResult>)> on_scores;
};

/// Bytes of the stage's weights that have been loaded; on the RPC thread.
using ProgressCallback = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

class RankClient {
 public:
  /// Takes over a connected stream socket. `on_disconnect` is called once when the connection is
  /// lost (not when this client is destroyed), after all open calls have been answered.
  RankClient(RpcThread& thread, UniqueFd socket, std::function<void(Error)> on_disconnect);
  /// Drops the connection: open calls are answered with `cancelled`, and on another thread than the
  /// RPC thread no callback runs after this returns.
  ~RankClient();
  RankClient(const RankClient&) = delete;
  RankClient& operator=(const RankClient&) = delete;

  // Each call: deadline_exceeded when `deadline` from now has passed without an answer,
  // disconnected when the connection is lost, cancelled when the client is destroyed, else what the
  // rank answered, with its code and full text.

  /// First of all calls. invalid_argument if the rank is of another protocol version or build.
  void hello(Duration deadline, Callback<HelloReply> callback);
  void load(LoadParams params, Duration deadline, ProgressCallback progress,
            Callback<LoadReport> callback);
  void connect(ConnectParams params, Duration deadline, Callback<Ok> callback);
  /// The callback comes after the last result. When the deadline passes the rank cancels the
  /// request.
  void submit(GenerateRequest request, Duration deadline, ResultCallbacks results,
              Callback<Ok> callback);
  void cancel(uint64_t request_id, Duration deadline, Callback<Ok> callback);
  void stats(Duration deadline, Callback<RankStats> callback);
  /// What the stage did, from event number `since` on.
  void trace(uint64_t since, Duration deadline, Callback<StepEvents> callback);
  void shutdown(Duration deadline, Callback<Ok> callback);
  /// The callback comes when the rank can serve no longer, with the reason; never with ok. No
  /// deadline: it is open as long as the connection is.
  void watch(Callback<Ok> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
