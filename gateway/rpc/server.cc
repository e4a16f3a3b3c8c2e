#include "gateway/rpc/server.h"

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <sys/socket.h>

#include "gateway/rpc/serving.h"
#include "gateway/rpc/sessions.h"
#include "transport/rpc/message_stream.h"

namespace chainpump::gateway::rpc {
namespace {

namespace wire = transport::rpc;

constexpr uint64_t kMessageBytesMax = 8 << 20;
constexpr size_t kQueuedBytesMax = 256 << 10;
constexpr kj::Duration kTick = 100 * kj::MILLISECONDS;
constexpr kj::Duration kTellMax = 1 * kj::SECONDS;  // for ends to be told when the server stops
// The library's window for unacknowledged deltas follows the send buffer: a small one keeps deltas
// fresh and a cancel quick.
constexpr int kSendBufferBytes = 4096;

wire::MessageLimits message_limits(const ServerOptions& options) {
  return {.segments_max = wire::kSegmentsMax,
          .words_max = kMessageBytesMax / sizeof(capnp::word),
          .unreleased_calls_max = options.unreleased_calls_max,
          .queued_bytes_max = kQueuedBytesMax};
}

capnp::ReaderOptions reader_options() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * kMessageBytesMax / sizeof(capnp::word);
  return options;
}

/// The peer's user, as the system attests it.
bool is_ours(kj::AsyncIoStream& stream, uid_t uid) {
  ucred peer{};
  kj::uint length = sizeof peer;
  stream.getsockopt(SOL_SOCKET, SO_PEERCRED, &peer, &length);
  return length == sizeof peer && (peer.uid == uid || peer.uid == 0);
}

class Connection {
 public:
  Connection(Serving& serving, kj::Timer& timer, kj::Own<kj::AsyncIoStream> io)
      : peer_(std::make_shared<Peer>()),
        io_(kj::mv(io)),
        stream_(*io_, timer, message_limits(serving.options)),
        network_(stream_, capnp::rpc::twoparty::Side::SERVER, reader_options()),
        rpc_(capnp::makeRpcServer(network_, make_gateway_server(serving, peer_))) {
    peer_->may_enter = is_ours(*io_, serving.options.uid);
    io_->setsockopt(SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof kSendBufferBytes);
    stream_.set_queued_bytes([this] { return network_.getCurrentQueueSize(); });
    // Calls whose answers are not there yet: they wait here, and are read no further.
    rpc_.setFlowLimit(2 * kMessageBytesMax / sizeof(capnp::word));
  }
  kj::Promise<void> ended() { return stream_.ended(network_); }

 private:
  std::shared_ptr<Peer> peer_;
  kj::Own<kj::AsyncIoStream> io_;
  wire::CheckedMessageStream stream_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
};

/// Accepts connections and keeps them until they end.
class Door final : public kj::TaskSet::ErrorHandler {
 public:
  Door(Serving& serving, kj::Timer& timer, kj::Own<kj::ConnectionReceiver> receiver)
      : serving_(serving), timer_(timer), receiver_(kj::mv(receiver)), connections_(*this) {}

  kj::Promise<void> run() {
    return receiver_->accept().then([this](kj::Own<kj::AsyncIoStream> io) {
      if (num_connections_ < serving_.options.connections_max) admit(kj::mv(io));
      return run();
    });
  }

 private:
  void admit(kj::Own<kj::AsyncIoStream> io) {
    ++num_connections_;
    auto connection = kj::heap<Connection>(serving_, timer_, kj::mv(io));
    auto ended = connection->ended();
    connections_.add(ended.attach(kj::mv(connection), kj::defer([this] { --num_connections_; })));
  }
  void taskFailed(kj::Exception&&) override {}  // a connection's end concerns nobody else

  Serving& serving_;
  kj::Timer& timer_;
  kj::Own<kj::ConnectionReceiver> receiver_;
  int32_t num_connections_ = 0;
  kj::TaskSet connections_;
};

kj::Promise<void> tick(Serving& serving, kj::Timer& timer) {
  serving.core.tick();
  // By a copy: whom one of them tells may end another.
  for (Ticked* ticked : std::vector<Ticked*>(serving.ticked.begin(), serving.ticked.end()))
    if (serving.ticked.contains(ticked)) ticked->tick();
  if (serving.options.on_tick && !serving.options.on_tick()) return kj::READY_NOW;
  return timer.afterDelay(kTick).then([&serving, &timer] { return tick(serving, timer); });
}

/// Until nobody is left who has to be told of an end.
kj::Promise<void> told(Serving& serving, kj::Timer& timer) {
  return timer.afterDelay(5 * kj::MILLISECONDS).then([&serving, &timer]() -> kj::Promise<void> {
    if (serving.core.idle() && serving.num_telling == 0) return kj::READY_NOW;
    return told(serving, timer);
  });
}

}  // namespace

struct Server::Impl {
  UniqueFd listener;
  Core& core;
  ServerOptions options;
};

Server::Server(UniqueFd listener, Core& core, ServerOptions options)
    : impl_(std::make_unique<Impl>(Impl{std::move(listener), core, std::move(options)})) {}

Server::~Server() = default;

Status Server::run() {
  ASSIGN_OR_RETURN(kj::AsyncIoContext io, wire::make_loop());
  auto exception = kj::runCatchingExceptions([&] {
    kj::Timer& timer = io.provider->getTimer();
    Serving serving{impl_->core, impl_->options};
    {
      Door door(serving, timer,
                io.lowLevelProvider->wrapListenSocketFd(
                    impl_->listener.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP));
      auto stop = tick(serving, timer).then([&serving, &timer] {
        return told(serving, timer).exclusiveJoin(timer.afterDelay(kTellMax));
      });
      serving.inbox->run().exclusiveJoin(door.run()).exclusiveJoin(kj::mv(stop)).wait(io.waitScope);
    }
    serving.inbox->close();
  });
  KJ_IF_MAYBE (e, exception) return wire::to_error(*e);
  return ok_status();
}

}  // namespace chainpump::gateway::rpc
