#include "transport/rpc/rank_client.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <atomic>
#include <future>
#include <map>
#include <thread>

#include "base/thread.h"
#include "base/version.h"
#include "transport/rpc/convert.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/message_stream.h"

namespace chainpump::transport::rpc {
namespace {

/// Owns a callback and sees to it that it is called once.
template <typename T>
class Call {
 public:
  explicit Call(Callback<T> callback) : callback_(std::move(callback)) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call() {
    if (callback_) finish(make_error(ErrorCode::cancelled, "the control connection was dropped"));
  }
  void finish(Result<T> result) {
    if (callback_) std::exchange(callback_, nullptr)(std::move(result));
  }

 private:
  Callback<T> callback_;
};

class ProgressServer final : public schema::ProgressSink::Server {
 public:
  explicit ProgressServer(ProgressCallback callback) : callback_(std::move(callback)) {}
  kj::Promise<void> report(ReportContext context) override {
    const auto params = context.getParams();
    if (callback_) callback_(params.getBytesDone(), params.getBytesTotal());
    return kj::READY_NOW;
  }

 private:
  ProgressCallback callback_;
};

class ResultServer final : public schema::ResultSink::Server {
 public:
  explicit ResultServer(ResultCallbacks callbacks) : callbacks_(std::move(callbacks)) {}
  kj::Promise<void> tokens(TokensContext context) override {
    std::vector<TokenResult> results;
    read_list(context.getParams().getResults(), results);
    if (callbacks_.on_tokens) callbacks_.on_tokens(std::move(results));
    return kj::READY_NOW;
  }
  kj::Promise<void> scores(ScoresContext context) override {
    std::vector<ScoreResult> results;
    read_list(context.getParams().getResults(), results);
    if (callbacks_.on_scores) callbacks_.on_scores(std::move(results));
    return kj::READY_NOW;
  }
  kj::Promise<void> done(DoneContext) override { return kj::READY_NOW; }

 private:
  ResultCallbacks callbacks_;
};

/// One connection; lives on the RPC thread.
class Connection final : public kj::TaskSet::ErrorHandler {
 public:
  Connection(kj::AsyncIoContext& io, int socket, std::function<void(Error)> on_disconnect)
      : timer_(io.provider->getTimer()),
        io_(io.lowLevelProvider->wrapSocketFd(socket, kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP)),
        stream_(*io_, timer_),
        network_(stream_, capnp::rpc::twoparty::Side::CLIENT, reader_options()),
        rpc_(capnp::makeRpcClient(network_)),
        rank_(bootstrap()),
        on_disconnect_(std::move(on_disconnect)),
        tasks_(*this) {
    tasks_.add(network_.onDisconnect().then([this] {
      // After everything that the end of the connection has set off.
      return kj::evalLast([this] { lost(); });
    }));
  }

  template <typename T>
  void run(const std::shared_ptr<Call<T>>& call, const char* name, Duration deadline,
           const std::function<kj::Promise<T>(schema::Rank::Client&)>& start) {
    auto late = timer_.afterDelay(to_kj(deadline)).then([name, deadline]() -> kj::Promise<T> {
      return to_exception(make_error(ErrorCode::deadline_exceeded,
                                     "the rank did not answer `{}` within {:.3g} s", name,
                                     to_seconds(deadline)));
    });
    tasks_.add(kj::evalNow([&] { return start(rank_); })
                   .exclusiveJoin(kj::mv(late))
                   .then([call](T value) { call->finish(std::move(value)); },
                         [call](kj::Exception&& exception) { call->finish(to_error(exception)); }));
  }

 private:
  static capnp::ReaderOptions reader_options() {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 4 * kMessageWordsMax;
    return options;
  }
  schema::Rank::Client bootstrap() {
    capnp::MallocMessageBuilder message(4);
    auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
    vat.setSide(capnp::rpc::twoparty::Side::SERVER);
    return rpc_.bootstrap(vat).castAs<schema::Rank>();
  }
  void lost() {
    if (!on_disconnect_) return;
    const std::string why =
        stream_.refusal().empty() ? "the rank closed the control connection" : stream_.refusal();
    std::exchange(on_disconnect_, nullptr)(make_error(ErrorCode::disconnected, "{}", why));
  }
  void taskFailed(kj::Exception&&) override { lost(); }

  kj::Timer& timer_;
  kj::Own<kj::AsyncIoStream> io_;
  CheckedMessageStream stream_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
  schema::Rank::Client rank_;
  std::function<void(Error)> on_disconnect_;
  kj::TaskSet tasks_;  // ends first: it answers the open calls
};

}  // namespace

struct RpcThread::Impl {
  Inbox inbox;
  std::thread thread;
  std::thread::id thread_id;  // stays when the thread has been joined
  std::promise<void> ended_promise;
  std::shared_future<void> ended = ended_promise.get_future().share();
  std::atomic<uint64_t> next_connection{1};
  // The RPC thread only:
  kj::AsyncIoContext* io = nullptr;
  kj::Own<kj::PromiseFulfiller<void>> stop;
  std::map<uint64_t, kj::Own<Connection>> connections;

  /// Tells `ready` whether there is a loop; only then is it run.
  void main(std::promise<Status>& ready) {
    thread_id = std::this_thread::get_id();
    Result<kj::AsyncIoContext> context = make_loop();
    if (!context.ok()) return ready.set_value(context.error());
    io = &*context;
    auto paf = kj::newPromiseAndFulfiller<void>();
    stop = kj::mv(paf.fulfiller);
    ready.set_value(ok_status());
    inbox.run().exclusiveJoin(kj::mv(paf.promise)).wait(context->waitScope);
    // In this order: whoever waits for a task that close() drops knows that no callback follows.
    connections.clear();
    inbox.close();
    stop = nullptr;
    io = nullptr;
    ended_promise.set_value();
  }

  template <typename T>
  void call(uint64_t id, const char* name, Duration deadline, Callback<T> callback,
            std::function<kj::Promise<T>(schema::Rank::Client&)> start) {
    auto call = std::make_shared<Call<T>>(std::move(callback));
    inbox.post([this, id, name, deadline, call, start = std::move(start)] {
      const auto found = connections.find(id);
      if (found != connections.end()) found->second->run<T>(call, name, deadline, start);
    });
  }
};

std::string build_name() { return fmt::format("{}+{}", release(), commit()); }

Result<RpcThread> RpcThread::create(const std::function<void()>& at_start) {
  auto impl = std::make_shared<Impl>();
  std::promise<Status> ready;
  ASSIGN_OR_RETURN(impl->thread, start_thread("the thread of control", [&, raw = impl.get()] {
                     if (at_start) at_start();
                     raw->main(ready);
                   }));
  const Status started = ready.get_future().get();
  if (!started.ok()) {
    impl->thread.join();
    return started.error();
  }
  return RpcThread(std::move(impl));
}

RpcThread::~RpcThread() {
  if (!impl_) return;
  CHECK(std::this_thread::get_id() != impl_->thread_id);
  impl_->inbox.post([impl = impl_.get()] { impl->stop->fulfill(); });
  impl_->thread.join();
}

RankClient::RankClient(RpcThread& thread, UniqueFd socket, std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()), connection_(thread_->next_connection++) {
  auto owned = std::make_shared<UniqueFd>(std::move(socket));
  thread_->inbox.post(
      [impl = thread_.get(), id = connection_, owned, on_disconnect = std::move(on_disconnect)] {
        impl->connections[id] = kj::heap<Connection>(*impl->io, owned->release(), on_disconnect);
      });
}

RankClient::~RankClient() {
  auto removed = std::make_shared<std::promise<void>>();
  auto done = removed->get_future();
  const bool posted =
      thread_->inbox.post([impl = thread_.get(), id = connection_, removed = std::move(removed)]() {
        impl->connections.erase(id);
        removed->set_value();
      });
  if (std::this_thread::get_id() == thread_->thread_id) return;
  // A task that was dropped because the thread is ending breaks the promise, which ends this wait.
  done.wait();
  if (!posted) thread_->ended.wait();
}

void RankClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply>(connection_, "hello", deadline, std::move(callback),
                            [](schema::Rank::Client& rank) {
                              auto request = rank.helloRequest();
                              request.setProtocolVersion(kProtocolVersion);
                              request.setBuild(build_name().c_str());
                              return request.send().then([](auto&& response) {
                                return HelloReply{response.getProtocolVersion(),
                                                  response.getBuild().cStr(), response.getPid()};
                              });
                            });
}

void RankClient::load(LoadParams params, Duration deadline, ProgressCallback progress,
                      Callback<LoadReport> callback) {
  thread_->call<LoadReport>(
      connection_, "load", deadline, std::move(callback),
      [params = std::move(params), progress = std::move(progress)](schema::Rank::Client& rank) {
        auto request = rank.loadRequest();
        write(request.initParams(), params);
        request.setProgress(kj::heap<ProgressServer>(progress));
        return request.send().then([](auto&& response) {
          LoadReport report;
          read(response.getReport(), report);
          return report;
        });
      });
}

void RankClient::connect(ConnectParams params, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "connect", deadline, std::move(callback),
                    [params = std::move(params)](schema::Rank::Client& rank) {
                      auto request = rank.connectRequest();
                      write_list(request.initLinks(params.links.size()), params.links);
                      write_list(request.initAccept(params.accept.size()), params.accept);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::submit(GenerateRequest generate, Duration deadline, ResultCallbacks results,
                        Callback<Ok> callback) {
  thread_->call<Ok>(
      connection_, "submit", deadline, std::move(callback),
      [generate = std::move(generate), results = std::move(results)](schema::Rank::Client& rank) {
        auto request = rank.submitRequest();
        write(request.initRequest(), generate);
        request.setSink(kj::heap<ResultServer>(results));
        return request.send().then([](auto&&) { return Ok{}; });
      });
}

void RankClient::cancel(uint64_t request_id, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "cancel", deadline, std::move(callback),
                    [request_id](schema::Rank::Client& rank) {
                      auto request = rank.cancelRequest();
                      request.setRequestId(request_id);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::stats(Duration deadline, Callback<RankStats> callback) {
  thread_->call<RankStats>(connection_, "stats", deadline, std::move(callback),
                           [](schema::Rank::Client& rank) {
                             return rank.statsRequest().send().then([](auto&& response) {
                               RankStats stats;
                               read(response.getStats(), stats);
                               return stats;
                             });
                           });
}

void RankClient::trace(uint64_t since, Duration deadline, Callback<StepEvents> callback) {
  thread_->call<StepEvents>(connection_, "trace", deadline, std::move(callback),
                            [since](schema::Rank::Client& rank) {
                              auto request = rank.traceRequest();
                              request.setSince(since);
                              return request.send().then([](auto&& response) {
                                StepEvents events;
                                read(response.getEvents(), events);
                                return events;
                              });
                            });
}

void RankClient::shutdown(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "shutdown", deadline, std::move(callback),
                    [](schema::Rank::Client& rank) {
                      return rank.shutdownRequest().send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::watch(Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "watch", Duration::max(), std::move(callback),
                    [](schema::Rank::Client& rank) {
                      return rank.watchRequest().send().then([](auto&&) { return Ok{}; });
                    });
}

}  // namespace chainpump::transport::rpc
