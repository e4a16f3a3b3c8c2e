// The rank's side of the control protocol (schemas/control.capnp): serve_rank() runs the RPC
// library's event loop in the calling thread and hands each call to a RankHandler together with a
// Reply, which any thread may answer later. No header of the library shows.
//
// `hello` is answered here: another protocol version or build is refused by name, and so is any
// other call before it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/step_trace.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"

namespace chainpump::transport::rpc {

/// The answer that a call waits for. Movable; answered at most once, from any thread, also after
/// the caller has gone (then it is dropped). Destroyed unanswered it answers `internal`.
template <typename T>
class Reply {
 public:
  Reply() = default;
  explicit Reply(std::function<void(Result<T>)> send) : send_(std::move(send)) {}
  Reply(Reply&& other) noexcept : send_(std::exchange(other.send_, nullptr)) {}
  Reply& operator=(Reply&& other) noexcept {
    if (this != &other) {
      abandon();
      send_ = std::exchange(other.send_, nullptr);
    }
    return *this;
  }
  ~Reply() { abandon(); }

  void operator()(Result<T> result) {
    CHECK_MSG(send_ != nullptr, "a call may be answered once");
    std::exchange(send_, nullptr)(std::move(result));
  }
  bool answered() const { return send_ == nullptr; }

 private:
  void abandon() {
    if (send_) (*this)(make_error(ErrorCode::internal, "the rank dropped the call unanswered"));
  }

  std::function<void(Result<T>)> send_;
};

class ResultQueue;  // shared with the RPC thread

/// The way back for one sequence's results. Copies share one queue. Any thread; never blocks. The
/// results that were pushed before the submit's Reply is answered arrive before that answer.
class ResultSinkHandle {
 public:
  ResultSinkHandle() = default;
  explicit ResultSinkHandle(std::shared_ptr<ResultQueue> queue) : queue_(std::move(queue)) {}

  /// Queues results; what piles up while the connection is busy goes out in one call.
  /// overloaded: the queue is full, nothing was taken, retry later (push_room() tells how much).
  /// disconnected: the caller is gone or has dropped the request; nothing will be taken any more.
  Status push(std::vector<TokenResult> tokens);
  Status push(std::vector<ScoreResult> scores);
  /// How many results push() would take now.
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
  virtual void on_submit(GenerateRequest request, ResultSinkHandle sink, Reply<Ok> reply) = 0;
  /// Also called, with nobody waiting, when the caller of an unanswered submit drops it or goes.
  virtual void on_cancel(uint64_t request_id, Reply<Ok> reply) = 0;
  virtual void on_stats(Reply<RankStats> reply) = 0;
  virtual void on_trace(uint64_t since, Reply<StepEvents> reply) = 0;
  /// After the answer has been sent serve_rank() returns.
  virtual void on_shutdown(Reply<Ok> reply) = 0;
  /// Answered, with an error, when this rank can no longer serve.
  virtual void on_watch(Reply<Ok> reply) = 0;
};

struct RankServerOptions {
  std::string build;                // what hello answers and demands; empty: build_name()
  size_t sink_results_max = 65536;  // per submit
};

/// Serves one connection in the calling thread until shutdown was answered (ok), the peer ended the
/// connection at whatever place (ok), or it broke a limit or the protocol (invalid_argument,
/// disconnected).
/// Replies answered after that are dropped.
Status serve_rank(UniqueFd socket, RankHandler& handler, const RankServerOptions& options = {});

}  // namespace chainpump::transport::rpc
