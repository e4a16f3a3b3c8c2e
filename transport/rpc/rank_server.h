// The rank's side of the control protocol (schemas/control.capnp): serve_rank() runs the RPC
// library's event loop in the calling thread and hands each call to a RankHandler together with a
// Reply, which any thread may answer later. No header of the library shows.
//
// `hello` is answered here: another protocol version or build is refused by name, and so is any
// other call before it. So are connections: how many there may be, and whose.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/step_trace.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"
#include "transport/rpc/move_types.h"
#include "transport/rpc/reply.h"

namespace chainpump::transport::rpc {

class ResultQueue;  // shared with the RPC thread

/// The way back for one client's results. Copies share one queue. Any thread; never blocks.
class ResultSinkHandle {
 public:
  ResultSinkHandle() = default;
  explicit ResultSinkHandle(std::shared_ptr<ResultQueue> queue) : queue_(std::move(queue)) {}

  /// Queues results; what piles up while the connection is busy goes out in one call.
  /// overloaded: tokens and scores do not fit, nothing was taken, retry later (push_room() tells
  /// how many do); ends alone always fit. disconnected: the client is gone, nothing will be taken
  /// any more.
  Status push(LaneResults results);
  /// How many tokens and scores push() would take now.
  size_t push_room() const;

 private:
  std::shared_ptr<ResultQueue> queue_;
};

/// Reports loading; any thread, cheap (the latest value wins), may outlive the call.
using ProgressReport = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

/// What a rank does on each call. All methods run on the thread of serve_rank() and must return
/// soon: the work goes to an actor or thread that answers the Reply.
class RankHandler {
 public:
  virtual ~RankHandler() = default;
  virtual void on_load(LoadParams params, ProgressReport progress, Reply<LoadReport> reply) = 0;
  virtual void on_connect(ConnectParams params, Reply<Ok> reply) = 0;
  /// A client of the lane, by a number that is never used again: one for each lane of a connection.
  virtual void on_attach(uint64_t client, uint8_t lane, ResultSinkHandle sink, Reply<Ok> reply) = 0;
  virtual void on_submit(uint64_t client, std::vector<GenerateRequest> requests,
                         Reply<Ok> reply) = 0;
  virtual void on_cancel(uint64_t client, std::vector<uint64_t> request_ids, Reply<Ok> reply) = 0;
  /// The client has gone. The last call for it; also after an attach that was refused.
  virtual void on_detach(uint64_t client) = 0;
  virtual void on_stats(Reply<RankStats> reply) = 0;
  virtual void on_trace(uint64_t since, Reply<StepEvents> reply) = 0;
  /// After the answer has been sent serve_rank() returns.
  virtual void on_shutdown(Reply<Ok> reply) = 0;
  /// Answered, with an error, when this rank can no longer serve, or a link of its lanes broke.
  virtual void on_watch(bool of_links, Reply<Ok> reply) = 0;
  virtual BeatReply on_beat() = 0;  // at once
  virtual void on_fence(uint8_t lane, uint32_t epoch, Reply<StageHoldings> reply) = 0;
  virtual void on_resume(uint8_t lane, uint32_t epoch, std::vector<StageHoldings> stages,
                         Reply<Ok> reply) = 0;
  /// Checked.
  virtual void on_arm(const FaultOrder& fault, Reply<Ok> reply) = 0;
  virtual void on_take_in(KvCopy copy, Reply<KvAddress> reply) = 0;
  virtual void on_copy(KvCopy copy, ProgressReport progress, Reply<Ok> reply) = 0;
  virtual void on_finish_copy(Reply<Ok> reply) = 0;
};

struct RankServerOptions {
  std::string build;                // what hello answers and demands; empty: build_name()
  size_t sink_results_max = 65536;  // that wait for one client
  Admission admission = {};         // where the listener is on a network
};

/// Serves `control` and, if valid, whoever connects to `listener`, in the calling thread, until
/// shutdown was answered (ok), the peer ended the control connection (ok), or it broke a limit or
/// the protocol (invalid_argument, disconnected). Replies answered after that are dropped.
Status serve_rank(UniqueFd control, UniqueFd listener, RankHandler& handler,
                  const RankServerOptions& options = {});

}  // namespace chainpump::transport::rpc
