#include "transport/rpc/rpc_thread.h"

#include "base/thread.h"
#include "base/version.h"
#include "transport/rpc/connection.h"
#include "transport/rpc/tls.h"

namespace chainpump::transport::rpc {
namespace {

capnp::ReaderOptions reader_options() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * kMessageWordsMax;
  return options;
}

kj::Own<kj::AsyncIoStream> stream_of(kj::AsyncIoContext& io, Channel channel) {
  auto raw = io.lowLevelProvider->wrapSocketFd(channel.socket.release(),
                                               kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP);
  if (!channel.credentials) return raw;
  return kj::newPromisedStream(secure_client(kj::mv(raw), std::move(channel.credentials),
                                             std::move(channel.expected),
                                             std::move(channel.address)));
}

}  // namespace

Connection::Connection(kj::AsyncIoContext& io, Channel channel, const char* peer,
                       std::function<void(Error)> on_disconnect)
    : peer_(peer),
      timer_(io.provider->getTimer()),
      io_(stream_of(io, std::move(channel))),
      stream_(*io_, timer_),
      network_(stream_, capnp::rpc::twoparty::Side::CLIENT, reader_options()),
      rpc_(capnp::makeRpcClient(network_)),
      bootstrap_(bootstrap()),
      on_disconnect_(std::move(on_disconnect)),
      tasks_(*this) {
  tasks_.add(stream_.ended(network_).then([this] {
    // After everything that the end of the connection has set off.
    return kj::evalLast([this] { lost(); });
  }));
}

capnp::Capability::Client Connection::bootstrap() {
  capnp::MallocMessageBuilder message(4);
  auto vat = message.initRoot<capnp::rpc::twoparty::VatId>();
  vat.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc_.bootstrap(vat);
}

void Connection::lost() {
  if (!on_disconnect_) return;
  const std::string why = stream_.refusal().empty()
                              ? fmt::format("{} closed the control connection", peer_)
                              : stream_.refusal();
  std::exchange(on_disconnect_, nullptr)(make_error(ErrorCode::disconnected, "{}", why));
}

void RpcThread::Impl::main(std::promise<Status>& ready) {
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

uint64_t RpcThread::Impl::open(Channel channel, const char* peer,
                               std::function<void(Error)> on_disconnect) {
  const uint64_t id = next_connection++;
  auto owned = std::make_shared<Channel>(std::move(channel));
  inbox.post([this, id, owned, peer, on_disconnect = std::move(on_disconnect)] {
    connections[id] = kj::heap<Connection>(*io, std::move(*owned), peer, on_disconnect);
  });
  return id;
}

void RpcThread::Impl::drop(uint64_t id) {
  auto removed = std::make_shared<std::promise<void>>();
  auto done = removed->get_future();
  const bool posted = inbox.post([this, id, removed = std::move(removed)]() {
    connections.erase(id);
    removed->set_value();
  });
  if (std::this_thread::get_id() == thread_id) return;
  // A task that was dropped because the thread is ending breaks the promise, which ends this wait.
  done.wait();
  if (!posted) ended.wait();
}

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

}  // namespace chainpump::transport::rpc
