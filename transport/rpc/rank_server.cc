#include "transport/rpc/rank_server.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "transport/rpc/convert.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/message_stream.h"
#include "transport/rpc/rank_client.h"
#include "transport/rpc/result_queue.h"

namespace chainpump::transport::rpc {
namespace {

constexpr size_t kResultsPerCall = 4096;
constexpr kj::Duration kFlushDeadline = 1 * kj::SECONDS;  // for the answer to a shutdown to leave

/// Sends one submit's results; lives in the loop, as part of the submit's promise.
class SinkPump final : public std::enable_shared_from_this<SinkPump> {
 public:
  SinkPump(schema::ResultSink::Client sink, std::shared_ptr<ResultQueue> queue)
      : queue_(std::move(queue)), sink_(kj::mv(sink)) {}
  ~SinkPump() { queue_->close(); }

  void wake() {
    if (running_) return;
    running_ = true;
    task_ = drain().eagerlyEvaluate([this](kj::Exception&&) {
      queue_->close();  // the caller's sink is gone
      stopped();
    });
  }

  /// Everything pushed so far has been taken by the caller.
  kj::Promise<void> finish() {
    wake();
    if (running_) {
      auto paf = kj::newPromiseAndFulfiller<void>();
      idle_ = kj::mv(paf.fulfiller);
      return paf.promise.then([this] { return finish(); });
    }
    queue_->close();
    return sink_.doneRequest().send().ignoreResult();
  }

 private:
  kj::Promise<void> drain() {
    auto batch = std::make_shared<ResultQueue::Batch>(queue_->take());
    if (batch->empty()) {
      // At once: the next push wakes this pump again, and must not find it running.
      stopped();
      return kj::READY_NOW;
    }
    return send(batch, 0).then([this] { return drain(); });
  }

  /// The batch's results from `first` on, in calls of bounded size.
  kj::Promise<void> send(const std::shared_ptr<ResultQueue::Batch>& batch, size_t first) {
    kj::Promise<void> sent = kj::READY_NOW;
    if (const auto part = part_of(batch->tokens, first); !part.empty()) {
      auto request = sink_.tokensRequest();
      write_list(request.initResults(static_cast<uint32_t>(part.size())), part);
      sent = request.send();
    }
    if (const auto part = part_of(batch->scores, first); !part.empty()) {
      auto request = sink_.scoresRequest();
      write_list(request.initResults(static_cast<uint32_t>(part.size())), part);
      sent = sent.then([request = kj::mv(request)]() mutable { return request.send(); });
    }
    const size_t next = first + kResultsPerCall;
    if (next >= std::max(batch->tokens.size(), batch->scores.size())) return sent;
    return sent.then([this, batch, next] { return send(batch, next); });
  }

  template <typename T>
  static std::vector<T> part_of(const std::vector<T>& all, size_t first) {
    const size_t begin = std::min(first, all.size());
    const size_t end = std::min(all.size(), begin + kResultsPerCall);
    return std::vector<T>(all.begin() + static_cast<ptrdiff_t>(begin),
                          all.begin() + static_cast<ptrdiff_t>(end));
  }

  void stopped() {
    running_ = false;
    if (idle_.get() != nullptr) idle_->fulfill();
  }

  std::shared_ptr<ResultQueue> queue_;
  schema::ResultSink::Client sink_;
  bool running_ = false;
  kj::Own<kj::PromiseFulfiller<void>> idle_;
  kj::Promise<void> task_ = kj::READY_NOW;
};

/// Sends the latest progress, one report in flight at a time.
struct ProgressState {
  std::mutex mutex;
  int64_t done = 0;
  int64_t total = 0;
  bool posted = false;
};

class ProgressPump {
 public:
  ProgressPump(schema::ProgressSink::Client sink, std::shared_ptr<ProgressState> state)
      : state_(std::move(state)), sink_(kj::mv(sink)) {}
  void wake() {
    auto request = sink_.reportRequest();
    {
      const std::lock_guard lock(state_->mutex);
      state_->posted = false;
      request.setBytesDone(state_->done);
      request.setBytesTotal(state_->total);
    }
    task_ = task_.then([request = kj::mv(request)]() mutable { return request.send(); })
                .eagerlyEvaluate([](kj::Exception&&) {});
  }

 private:
  std::shared_ptr<ProgressState> state_;
  schema::ProgressSink::Client sink_;
  kj::Promise<void> task_ = kj::READY_NOW;
};

/// What outlives single calls of one connection.
struct Serving {
  RankHandler& handler;
  const RankServerOptions& options;
  std::string build;
  std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
  kj::Own<kj::PromiseFulfiller<void>> stop = {};
};

class RankServer final : public schema::Rank::Server {
 public:
  explicit RankServer(Serving& serving) : serving_(serving) {}

  kj::Promise<void> hello(HelloContext context) override {
    const auto params = context.getParams();
    const std::string theirs = params.getBuild();
    if (params.getProtocolVersion() != kProtocolVersion || theirs != serving_.build)
      return to_exception(make_error(
          ErrorCode::invalid_argument,
          "the caller is build {} with control protocol {}; this rank is build {} with protocol {}",
          theirs, params.getProtocolVersion(), serving_.build, kProtocolVersion));
    greeted_ = true;
    auto results = context.getResults();
    results.setProtocolVersion(kProtocolVersion);
    results.setBuild(serving_.build.c_str());
    results.setPid(getpid());
    return kj::READY_NOW;
  }

  kj::Promise<void> load(LoadContext context) override {
    check_greeted(context);
    rpc::LoadParams params;
    read(context.getParams().getParams(), params);
    auto state = std::make_shared<ProgressState>();
    auto pump = std::make_shared<ProgressPump>(context.getParams().getProgress(), state);
    auto report = [inbox = serving_.inbox, state, weak = std::weak_ptr(pump)](int64_t done,
                                                                              int64_t total) {
      {
        const std::lock_guard lock(state->mutex);
        state->done = done;
        state->total = total;
        if (std::exchange(state->posted, true)) return;
      }
      inbox->post([weak] {
        if (const auto alive = weak.lock()) alive->wake();
      });
    };
    auto [promise, reply] = make_reply<LoadReport>();
    serving_.handler.on_load(std::move(params), std::move(report), std::move(reply));
    return promise
        .then([context](Result<LoadReport> result) mutable {
          write(context.getResults().initReport(), value_of(result));
        })
        .attach(kj::mv(pump));
  }

  kj::Promise<void> connect(ConnectContext context) override {
    check_greeted(context);
    rpc::ConnectParams params;
    read_list(context.getParams().getLinks(), params.links);
    read_list(context.getParams().getAccept(), params.accept);
    auto [promise, reply] = make_reply<Ok>();
    serving_.handler.on_connect(std::move(params), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> submit(SubmitContext context) override {
    check_greeted(context);
    GenerateRequest request;
    read(context.getParams().getRequest(), request);
    const uint64_t request_id = request.request_id;
    auto queue = std::make_shared<ResultQueue>(serving_.options.sink_results_max);
    auto pump = std::make_shared<SinkPump>(context.getParams().getSink(), queue);
    queue->set_wake([inbox = serving_.inbox, weak = std::weak_ptr(pump)] {
      inbox->post([weak] {
        if (const auto alive = weak.lock()) alive->wake();
      });
    });
    auto [promise, reply] = make_reply<Ok>();
    auto answered = std::make_shared<bool>(false);
    // A call that is dropped, or whose connection ends, is a cancelled request.
    auto guard = kj::defer([&serving = serving_, request_id, answered, queue] {
      queue->close();
      if (!*answered) serving.handler.on_cancel(request_id, Reply<Ok>([](Result<Ok>) {}));
    });
    serving_.handler.on_submit(std::move(request), ResultSinkHandle(queue), std::move(reply));
    auto* sink = pump.get();
    return promise
        .then([answered, sink](Result<Ok> result) {
          *answered = true;
          return sink->finish().then([result = std::move(result)]() mutable { value_of(result); });
        })
        .attach(kj::mv(pump), kj::mv(guard));
  }

  kj::Promise<void> cancel(CancelContext context) override {
    check_greeted(context);
    auto [promise, reply] = make_reply<Ok>();
    serving_.handler.on_cancel(context.getParams().getRequestId(), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> stats(StatsContext context) override {
    check_greeted(context);
    auto [promise, reply] = make_reply<RankStats>();
    serving_.handler.on_stats(std::move(reply));
    return promise.then([context](Result<RankStats> result) mutable {
      write(context.getResults().initStats(), value_of(result));
    });
  }

  kj::Promise<void> trace(TraceContext context) override {
    check_greeted(context);
    auto [promise, reply] = make_reply<StepEvents>();
    serving_.handler.on_trace(context.getParams().getSince(), std::move(reply));
    return promise.then([context](Result<StepEvents> result) mutable {
      write(context.getResults().initEvents(), value_of(result));
    });
  }

  kj::Promise<void> shutdown(ShutdownContext context) override {
    check_greeted(context);
    auto [promise, reply] = make_reply<Ok>();
    serving_.handler.on_shutdown(std::move(reply));
    return promise.then([this](Result<Ok> result) {
      value_of(result);
      serving_.stop->fulfill();
    });
  }

  kj::Promise<void> watch(WatchContext context) override {
    check_greeted(context);
    auto [promise, reply] = make_reply<Ok>();
    serving_.handler.on_watch(std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

 private:
  template <typename Context>
  void check_greeted(Context& context) {
    context.allowCancellation();
    if (!greeted_)
      kj::throwFatalException(
          to_exception(make_error(ErrorCode::invalid_argument, "the first call must be hello")));
  }

  template <typename T>
  static T& value_of(Result<T>& result) {
    if (!result.ok()) kj::throwFatalException(to_exception(result.error()));
    return result.value();
  }

  /// A promise and the Reply that fulfils it from any thread, for as long as the promise lives.
  template <typename T>
  std::pair<kj::Promise<Result<T>>, Reply<T>> make_reply() {
    auto paf = kj::newPromiseAndFulfiller<Result<T>>();
    using Fulfiller = kj::Own<kj::PromiseFulfiller<Result<T>>>;
    auto fulfiller = std::make_shared<Fulfiller>(kj::mv(paf.fulfiller));
    Reply<T> reply([inbox = serving_.inbox, weak = std::weak_ptr(fulfiller)](Result<T> result) {
      inbox->post([weak, boxed = std::make_shared<Result<T>>(std::move(result))] {
        if (const auto alive = weak.lock()) (*alive)->fulfill(std::move(*boxed));
      });
    });
    return {paf.promise.attach(kj::mv(fulfiller)), std::move(reply)};
  }

  Serving& serving_;
  bool greeted_ = false;
};

/// The loop of one connection: ok, or why it ended.
Status serve(kj::AsyncIoContext& io, int socket, Serving& serving) {
  // The library's window for unacknowledged results follows the send buffer: a small one keeps
  // results fresh and a cancel quick.
  const int send_buffer_bytes = 4096;
  setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(send_buffer_bytes));
  kj::Timer& timer = io.provider->getTimer();
  auto connection =
      io.lowLevelProvider->wrapSocketFd(socket, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  CheckedMessageStream stream(*connection, timer);
  auto paf = kj::newPromiseAndFulfiller<void>();
  serving.stop = kj::mv(paf.fulfiller);
  capnp::ReaderOptions reader_options;
  reader_options.traversalLimitInWords = 4 * kMessageWordsMax;
  bool stopped = false;
  {
    capnp::TwoPartyVatNetwork network(stream, capnp::rpc::twoparty::Side::SERVER, reader_options);
    auto rpc = capnp::makeRpcServer(network, kj::heap<RankServer>(serving));
    auto shut_down = paf.promise.then([&] {
      stopped = true;
      return stream.flushed().exclusiveJoin(timer.afterDelay(kFlushDeadline));
    });
    serving.inbox->run()
        .exclusiveJoin(network.onDisconnect())
        .exclusiveJoin(kj::mv(shut_down))
        .wait(io.waitScope);
    serving.inbox->close();
  }
  if (!stream.refusal().empty())
    return make_error(ErrorCode::invalid_argument, "control connection: {}", stream.refusal());
  if (!stopped && !stream.ended_by_peer())
    return make_error(ErrorCode::disconnected, "the control connection broke its protocol");
  return ok_status();
}

}  // namespace

Status serve_rank(UniqueFd socket, RankHandler& handler, const RankServerOptions& options) {
  Status status = ok_status();
  auto exception = kj::runCatchingExceptions([&] {
    auto io = kj::setupAsyncIo();
    Serving serving{handler, options, options.build.empty() ? build_name() : options.build};
    status = serve(io, socket.release(), serving);
  });
  KJ_IF_MAYBE (e, exception) status = to_error(*e);
  return status;
}

}  // namespace chainpump::transport::rpc
