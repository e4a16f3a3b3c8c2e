// The caller's side of the control protocol with one rank (schemas/control.capnp). Thread rule:
// transport/rpc/rpc_thread.h. No header of the RPC library shows.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/step_trace.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/move_types.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

/// Bytes of the stage's weights that have been loaded; on the RPC thread.
using ProgressCallback = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

class RankClient {
 public:
  /// Takes over a connected stream socket. `on_disconnect` is called once when the connection is
  /// lost (not when this client is destroyed), after all open calls have been answered.
  RankClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect);
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
  /// Becomes a client of the lane; once for each. `on_results` is called, on the RPC thread, with
  /// what the requests come to; each ends with its RequestEnd, or with the connection. Requests may
  /// be submitted before the answer.
  void attach(uint8_t lane, std::function<void(LaneResults)> on_results, Duration deadline,
              Callback<Ok> callback);
  /// Ok once they have been taken in; else they have no end of their own.
  void submit(uint8_t lane, std::vector<GenerateRequest> requests, Duration deadline,
              Callback<Ok> callback);
  void cancel(uint8_t lane, std::vector<uint64_t> request_ids, Duration deadline,
              Callback<Ok> callback);
  void stats(Duration deadline, Callback<RankStats> callback);
  /// What the stage did, from event number `since` on.
  void trace(uint64_t since, Duration deadline, Callback<StepEvents> callback);
  void shutdown(Duration deadline, Callback<Ok> callback);
  /// The callback comes when the rank can serve no longer, with the reason, or a link of one of its
  /// lanes has broken; never with ok. No
  /// deadline: it is open as long as the connection is.
  void watch(bool of_links, Callback<Ok> callback);
  /// What the stage holds of the lane, once nothing of it is on its way any more.
  void beat(Duration deadline, Callback<BeatReply> callback);
  void fence(uint8_t lane, uint32_t epoch, Duration deadline, Callback<StageHoldings> callback);
  void resume(uint8_t lane, uint32_t epoch, std::vector<StageHoldings> stages, Duration deadline,
              Callback<Ok> callback);
  /// In place of what it was told before. Of a death that comes at once the answer may be
  /// disconnected.
  void arm(const FaultOrder& fault, Duration deadline, Callback<Ok> callback);
  // Of a move.
  void take_in(KvCopy copy, Duration deadline, Callback<KvAddress> callback);
  void copy(KvCopy copy, Duration deadline, ProgressCallback progress, Callback<Ok> callback);
  void finish_copy(Duration deadline, Callback<Ok> callback);

 private:
  std::shared_ptr<RpcThread::Impl> thread_;
  uint64_t connection_ = 0;
};

}  // namespace chainpump::transport::rpc
