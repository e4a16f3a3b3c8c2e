#include "gateway/rpc/client.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "base/thread.h"
#include "gateway/rpc/answer.h"
#include "gateway/rpc/convert.h"
#include "gateway/rpc/inflow.h"
#include "transport/rpc/fields.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/message_stream.h"

namespace chainpump::gateway::rpc {
namespace {

namespace wire = transport::rpc;

constexpr Duration kCallMax = std::chrono::seconds(30);  // a large prompt, on a busy machine
constexpr Duration kPingMax = std::chrono::seconds(10);

Error error_of(const kj::Exception& exception) {
  const Error error = wire::to_error(exception);
  const bool lost = exception.getType() == kj::Exception::Type::DISCONNECTED;
  return lost && error.code == ErrorCode::disconnected ? gone() : error;
}

}  // namespace

/// The connection, on its thread.
struct Client::Impl : std::enable_shared_from_this<Client::Impl>, kj::TaskSet::ErrorHandler {
  std::shared_ptr<wire::Inbox> inbox = std::make_shared<wire::Inbox>();
  std::thread thread;
  DeploymentInfo deployment;

  // The connection's thread only:
  kj::Own<kj::PromiseFulfiller<void>> stop;
  kj::Timer* timer = nullptr;
  kj::Maybe<api::Gateway::Client> gateway;
  kj::Maybe<api::Session::Client> session;
  kj::Maybe<api::Operator::Client> looking_after;
  kj::Maybe<kj::TaskSet> tasks;
  std::map<uint64_t, kj::Own<kj::PromiseFulfiller<void>>> droppable;
  std::map<uint64_t, api::Generation::Client> generations;
  uint64_t last_key = 0;

  /// Tells `ready` whether there is a loop; only then does it talk to the service.
  void main(UniqueFd socket, std::promise<Status>& ready);
  void taskFailed(kj::Exception&&) override {}

  /// Makes a call and waits for it; dropped when `patience` is over.
  template <typename T>
  Result<T> call(const char* name, Duration patience, std::function<kj::Promise<T>(Impl&)> start) {
    auto answer = begin<T>(name, patience, std::move(start)).second;
    // The connection's thread keeps the time; this is for one that hangs.
    if (auto result = answer->wait(patience + kPingMax)) return std::move(*result);
    return make_error(ErrorCode::deadline_exceeded, "`{}` was not answered", name);
  }
  /// The same without waiting; the key drops it.
  template <typename T>
  std::pair<uint64_t, std::shared_ptr<Answer<T>>> begin(const char* name, Duration patience,
                                                        std::function<kj::Promise<T>(Impl&)> start);
  void drop(uint64_t key) {
    inbox->post([this, key] {
      const auto found = droppable.find(key);
      if (found != droppable.end()) found->second->fulfill();
    });
  }
  std::mutex key_mutex;
};

template <typename T>
std::pair<uint64_t, std::shared_ptr<Answer<T>>> Client::Impl::begin(
    const char* name, Duration patience, std::function<kj::Promise<T>(Impl&)> start) {
  uint64_t key = 0;
  {
    const std::lock_guard lock(key_mutex);
    key = ++last_key;
  }
  auto answer = std::make_shared<Answer<T>>();
  auto promised = std::make_shared<Promised<T>>(answer);
  inbox->post([this, key, name, patience, promised, start = std::move(start)] {
    auto late = timer->afterDelay(wire::to_kj(patience)).then([name, patience]() -> kj::Promise<T> {
      return wire::to_exception(make_error(ErrorCode::deadline_exceeded,
                                           "the service did not answer `{}` within {:.3g} s", name,
                                           to_seconds(patience)));
    });
    auto paf = kj::newPromiseAndFulfiller<void>();
    droppable[key] = kj::mv(paf.fulfiller);
    auto dropped = paf.promise.then([]() -> kj::Promise<T> {
      return wire::to_exception(make_error(ErrorCode::cancelled, "the call was dropped"));
    });
    KJ_ASSERT_NONNULL(tasks).add(
        kj::evalNow([&] { return start(*this); })
            .exclusiveJoin(kj::mv(late))
            .exclusiveJoin(kj::mv(dropped))
            .then([promised](T value) { promised->finish(std::move(value)); },
                  [promised](kj::Exception&& e) { promised->finish(error_of(e)); })
            .then([this, key] { droppable.erase(key); }));
  });
  return {key, std::move(answer)};
}

void Client::Impl::main(UniqueFd socket, std::promise<Status>& ready) {
  Result<kj::AsyncIoContext> loop = wire::make_loop();
  if (!loop.ok()) {
    inbox->close();
    return ready.set_value(loop.error());
  }
  ready.set_value(ok_status());
  kj::AsyncIoContext& io = *loop;
  auto exception = kj::runCatchingExceptions([&] {
    timer = &io.provider->getTimer();
    auto stream_io = io.lowLevelProvider->wrapSocketFd(socket.release(),
                                                       kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
    wire::CheckedMessageStream stream(*stream_io, *timer);
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 4 * wire::kMessageWordsMax;
    capnp::TwoPartyVatNetwork network(stream, capnp::rpc::twoparty::Side::CLIENT, options);
    auto rpc = capnp::makeRpcClient(network);
    {
      capnp::MallocMessageBuilder message(4);
      auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
      vat.setSide(capnp::rpc::twoparty::Side::SERVER);
      gateway = rpc.bootstrap(vat).castAs<api::Gateway>();
    }
    tasks.emplace(*this);
    auto paf = kj::newPromiseAndFulfiller<void>();
    stop = kj::mv(paf.fulfiller);
    inbox->run()
        .exclusiveJoin(kj::mv(paf.promise))
        .exclusiveJoin(stream.ended(network).then([] {
          return kj::evalLast([] {});  // after all that the end of the connection has set off
        }))
        .wait(io.waitScope);
    // In this order: calls are answered before anything they need is gone.
    inbox->close();
    tasks = nullptr;
    droppable.clear();
    generations.clear();
    session = nullptr;
    looking_after = nullptr;
    gateway = nullptr;
    stop = nullptr;
  });
  KJ_IF_MAYBE (e, exception) (void)e;  // whoever waits is told that the service has gone
  inbox->close();
}

namespace {

class RemoteGenerating final : public Generating {
 public:
  RemoteGenerating(std::shared_ptr<Client::Impl> impl, std::shared_ptr<Inflow> inflow, uint64_t key,
                   uint64_t seed)
      : impl_(std::move(impl)), inflow_(std::move(inflow)), key_(key), seed_(seed) {}
  ~RemoteGenerating() override {
    impl_->inbox->post([impl = impl_.get(), key = key_] { impl->generations.erase(key); });
  }
  uint64_t seed() const override { return seed_; }

  Update next(Duration patience) override {
    Update update = inflow_->next(patience);
    if (!update.empty() || inflow_->ended()) return update;
    // Silence: a queue, or a service that hangs.
    const Result<Ok> alive = impl_->call<Ok>("hello", kPingMax, [](Client::Impl& impl) {
      return KJ_ASSERT_NONNULL(impl.gateway).helloRequest().send().then([](auto&&) {
        return Ok{};
      });
    });
    if (!alive.ok()) inflow_->finish(alive.error());
    return inflow_->next(Duration(0));
  }

  void cancel() override {
    inflow_->cancel();
    impl_->inbox->post([impl = impl_.get(), key = key_] {
      const auto found = impl->generations.find(key);
      if (found == impl->generations.end()) return;
      KJ_ASSERT_NONNULL(impl->tasks).add(found->second.cancelRequest().send().ignoreResult());
    });
  }

 private:
  std::shared_ptr<Client::Impl> impl_;
  std::shared_ptr<Inflow> inflow_;
  uint64_t key_;
  uint64_t seed_;
};

class RemoteScored final : public Scored {
 public:
  RemoteScored(std::shared_ptr<Client::Impl> impl, uint64_t key,
               std::shared_ptr<Answer<Scores>> answer)
      : impl_(std::move(impl)), key_(key), answer_(std::move(answer)) {}
  ~RemoteScored() override { impl_->drop(key_); }
  Result<Scores> wait(Duration patience) override {
    if (auto answer = answer_->wait(patience)) return std::move(*answer);
    return make_error(ErrorCode::deadline_exceeded, "no scores within {:.3g} s",
                      to_seconds(patience));
  }

 private:
  std::shared_ptr<Client::Impl> impl_;
  uint64_t key_;
  std::shared_ptr<Answer<Scores>> answer_;
};

Result<UniqueFd> connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return make_error(ErrorCode::not_found,
                      "{}: no service: a socket's path may have {} bytes at most, this one has {}",
                      path, sizeof address.sun_path - 1, path.size());
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return make_error(ErrorCode::no_room, "socket: {}", std::strerror(errno));
  // A listener with a full queue must not keep us for ever.
  const timeval patience{.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return socket;
  if (errno == EAGAIN)
    return make_error(ErrorCode::deadline_exceeded, "{}: the service takes no connection", path);
  return make_error(ErrorCode::not_found, "{}: no service: {}", path, std::strerror(errno));
}

class EventServer final : public api::EventSink::Server {
 public:
  explicit EventServer(std::function<void(std::vector<Event>)> on_events)
      : on_events_(std::move(on_events)) {}
  kj::Promise<void> events(EventsContext context) override {
    std::vector<Event> events;
    for (const auto event : context.getParams().getEvents()) events.push_back(read(event));
    on_events_(std::move(events));
    return kj::READY_NOW;
  }

 private:
  std::function<void(std::vector<Event>)> on_events_;
};

}  // namespace

Result<std::unique_ptr<Client>> Client::connect(const std::string& path, Duration patience) {
  ASSIGN_OR_RETURN(UniqueFd socket, connect_to(path));
  return connect(std::move(socket), patience);
}

Result<std::unique_ptr<Client>> Client::connect(UniqueFd socket, Duration patience) {
  auto impl = std::make_shared<Impl>();
  std::promise<Status> ready;
  ASSIGN_OR_RETURN(impl->thread,
                   start_thread("the thread that talks to the service",
                                [&, raw = impl.get()] { raw->main(std::move(socket), ready); }));
  std::unique_ptr<Client> client(new Client(impl));
  RETURN_IF_ERROR(ready.get_future().get());
  ASSIGN_OR_RETURN(
      impl->deployment, impl->call<DeploymentInfo>("authenticate", patience, [](Impl& to) {
        auto entered = KJ_ASSERT_NONNULL(to.gateway).authenticateRequest().send();
        to.session = entered.getSession();
        to.looking_after = entered.getOperator();
        return KJ_ASSERT_NONNULL(to.session).deploymentRequest().send().then([](auto&& response) {
          return read(response.getDeployment());
        });
      }));
  return client;
}

Client::~Client() {
  impl_->inbox->post([impl = impl_.get()] { impl->stop->fulfill(); });
  impl_->thread.join();
}

const DeploymentInfo& Client::deployment() const { return impl_->deployment; }

Status Client::wait_ready(Duration patience) {
  // Without patience the question is whether it still lives.
  if (patience == Duration(0)) {
    if (impl_->inbox->post([] {})) return ok_status();
    return gone();
  }
  return impl_->call<Ok>("ready", patience, [](Impl& impl) {
    return KJ_ASSERT_NONNULL(impl.session).readyRequest().send().then([](auto&&) { return Ok{}; });
  });
}

Result<TokenIds> Client::tokenize(const Prompt& prompt) {
  return impl_->call<TokenIds>("tokenize", kCallMax, [prompt](Impl& impl) {
    auto request = KJ_ASSERT_NONNULL(impl.session).tokenizeRequest();
    write(request.initPrompt(), prompt);
    return request.send().then([](auto&& response) { return read_ints(response.getIds()); });
  });
}

Result<std::unique_ptr<Generating>> Client::generate(const GenerateRequest& asked) {
  auto inflow = std::make_shared<Inflow>(impl_->inbox);
  struct Admitted {
    uint64_t key;
    uint64_t seed;
  };
  ASSIGN_OR_RETURN(const Admitted admitted,
                   impl_->call<Admitted>("generate", kCallMax, [asked, inflow](Impl& impl) {
                     auto request = KJ_ASSERT_NONNULL(impl.session).generateRequest();
                     write(request.initRequest(), asked);
                     request.setSink(make_sink_server(inflow));
                     return request.send().then([&impl](auto&& response) {
                       const uint64_t key = response.getRequestId();
                       impl.generations.emplace(key, response.getGeneration());
                       return Admitted{key, response.getSeed()};
                     });
                   }));
  return std::unique_ptr<Generating>(
      std::make_unique<RemoteGenerating>(impl_, std::move(inflow), admitted.key, admitted.seed));
}

Result<std::unique_ptr<Scored>> Client::score(const ScoreRequest& asked) {
  if (!asked.full_path.empty())
    return make_error(ErrorCode::unimplemented, "a service writes no files for its clients");
  auto [key, answer] =
      impl_->begin<Scores>("score", asked.deadline + kCallMax, [asked](Impl& impl) {
        auto request = KJ_ASSERT_NONNULL(impl.session).scoreRequest();
        write(request.initRequest(), asked);
        return request.send().then([](auto&& response) {
          Scores scores;
          for (const float logprob : response.getLogprobs()) scores.logprobs.push_back(logprob);
          scores.argmax = read_ints(response.getArgmax());
          return scores;
        });
      });
  return std::unique_ptr<Scored>(std::make_unique<RemoteScored>(impl_, key, std::move(answer)));
}

Result<StatusReport> Client::status(Duration patience) {
  return impl_->call<StatusReport>("status", patience, [](Impl& impl) {
    return KJ_ASSERT_NONNULL(impl.looking_after).statusRequest().send().then([](auto&& response) {
      return read(response.getStatus());
    });
  });
}

Result<Readiness> Client::readiness(Duration patience) {
  return impl_->call<Readiness>("readiness", patience, [](Impl& impl) {
    auto asked = KJ_ASSERT_NONNULL(impl.looking_after).readinessRequest().send();
    return asked.then([](auto&& response) { return read(response.getReadiness()); });
  });
}

Result<StepEvents> Client::trace(RankId rank, uint64_t since, Duration patience) {
  return impl_->call<StepEvents>("trace", patience, [rank, since](Impl& impl) {
    auto request = KJ_ASSERT_NONNULL(impl.looking_after).traceRequest();
    request.setRank(rank.value);
    request.setSince(since);
    return request.send().then(
        [](auto&& response) { return wire::read_steps(response.getEvents()); });
  });
}

void Client::watch(uint64_t after, std::function<void(std::vector<Event>)> on_events) {
  impl_->begin<Ok>("watch", Duration::max(), [after, on_events = std::move(on_events)](Impl& impl) {
    auto request = KJ_ASSERT_NONNULL(impl.looking_after).watchRequest();
    request.setAfter(after);
    request.setSink(kj::heap<EventServer>(on_events));
    return request.send().then([](auto&&) { return Ok{}; });
  });
}

}  // namespace chainpump::gateway::rpc
