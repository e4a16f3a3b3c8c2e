#include "transport/rpc/serving.h"

#include <capnp/rpc-twoparty.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <set>

#include "transport/network_socket.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/message_stream.h"
#include "transport/rpc/rpc_thread.h"
#include "transport/rpc/tls.h"
#include "transport/socket_address.h"

namespace chainpump::transport::rpc {
namespace {

constexpr int kConnectionsMax = 64;                       // of the listening socket
constexpr int kOpenCallsMax = 1024;                       // of one connection
constexpr kj::Duration kFlushDeadline = 1 * kj::SECONDS;  // for the answer to a shutdown to leave
constexpr kj::Duration kAcceptPause = 100 * kj::MILLISECONDS;  // when no descriptor is left
constexpr kj::Duration kHandshakeDeadline = 5 * kj::SECONDS;
constexpr kj::Duration kRefusalsEvery = 1 * kj::SECONDS;  // told at most

capnp::ReaderOptions reader_options() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * kMessageWordsMax;
  return options;
}

bool is_on_network(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  return ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0 &&
         address.ss_family != AF_UNIX;
}

std::string peer_address(kj::AsyncIoStream& stream) {
  sockaddr_storage address{};
  kj::uint length = sizeof address;
  const auto failed = kj::runCatchingExceptions(
      [&] { stream.getpeername(reinterpret_cast<sockaddr*>(&address), &length); });
  return failed == nullptr ? transport::to_string(address) : "a peer that has gone";
}

/// The peer's user, as the system attests it.
bool is_ours(kj::AsyncIoStream& stream) {
  ucred peer{};
  kj::uint length = sizeof peer;
  stream.getsockopt(SOL_SOCKET, SO_PEERCRED, &peer, &length);
  return length == sizeof peer && (peer.uid == ::geteuid() || peer.uid == 0);
}

/// The library's window for unacknowledged results follows the send buffer: a small one keeps
/// results fresh and a cancel quick.
void set_small_window(kj::AsyncIoStream& stream) {
  const int send_buffer_bytes = 4096;
  stream.setsockopt(SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof send_buffer_bytes);
}

class ServerConnection {
 public:
  ServerConnection(kj::Timer& timer, kj::Own<kj::AsyncIoStream> io,
                   capnp::Capability::Client bootstrap)
      : io_(kj::mv(io)),
        stream_(*io_, timer),
        network_(stream_, capnp::rpc::twoparty::Side::SERVER, reader_options()),
        rpc_(capnp::makeRpcServer(network_, kj::mv(bootstrap))) {
    // Calls whose answers are not there yet: they wait here, and are read no further.
    rpc_.setFlowLimit(2 * kMessageWordsMax);
  }
  kj::Promise<void> ended() { return stream_.ended(network_); }
  CheckedMessageStream& stream() { return stream_; }
  kj::AsyncIoStream& io() { return *io_; }

 private:
  kj::Own<kj::AsyncIoStream> io_;
  CheckedMessageStream stream_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
};

/// Accepts connections and keeps them until they end.
class Door final : public kj::TaskSet::ErrorHandler {
 public:
  Door(kj::Timer& timer, kj::Own<kj::ConnectionReceiver> receiver, const MakeBootstrap& bootstrap,
       const Admission& admission, bool is_on_network, bool is_bulk)
      : timer_(timer),
        receiver_(kj::mv(receiver)),
        bootstrap_(bootstrap),
        admission_(admission),
        is_on_network_(is_on_network),
        is_bulk_(is_bulk),
        tasks_(*this) {}

  kj::Promise<void> run() {
    return receiver_->accept().then(
        [this](kj::Own<kj::AsyncIoStream> io) {
          if (connections_.size() + num_strangers_ < kConnectionsMax) let_in(kj::mv(io));
          return run();
        },
        [this](kj::Exception&&) {
          return timer_.afterDelay(kAcceptPause).then([this] { return run(); });
        });
  }

  /// Resolves when all that was written is on its way.
  kj::Promise<void> flushed() {
    auto all = kj::heapArrayBuilder<kj::Promise<void>>(connections_.size());
    for (const auto& connection : connections_)  // which lives until then
      all.add(connection->stream().flushed().attach(std::shared_ptr(connection)));
    return kj::joinPromises(all.finish());
  }

 private:
  void let_in(kj::Own<kj::AsyncIoStream> io) {
    if (!is_on_network_) {
      if (is_ours(*io)) admit(kj::mv(io), std::nullopt);
      return;
    }
    std::string address = peer_address(*io);
    KJ_IF_MAYBE (socket, io->getFd()) tune_network_socket(*socket);
    ++num_strangers_;
    auto secured = secure_server(kj::mv(io), admission_.credentials, admission_.role, address);
    auto late =
        timer_.afterDelay(kHandshakeDeadline)
            .then([address]() -> kj::Promise<std::pair<kj::Own<kj::AsyncIoStream>, Identity>> {
              return to_exception(make_error(ErrorCode::deadline_exceeded,
                                             "{}: said nothing that would show who it is",
                                             address));
            });
    tasks_.add(secured.exclusiveJoin(kj::mv(late))
                   .then(
                       [this](std::pair<kj::Own<kj::AsyncIoStream>, Identity>&& peer) {
                         admit(kj::mv(peer.first), std::move(peer.second));
                       },
                       [this](kj::Exception&& why) { note_refused(to_error(why)); })
                   .attach(kj::defer([this] { --num_strangers_; })));
  }

  void note_refused(const Error& why) {
    const kj::TimePoint now = timer_.now();
    if (!admission_.on_refused || (told_ && now - *told_ < kRefusalsEvery)) return;
    told_ = now;
    admission_.on_refused(fmt::format("refused a connection: {}", why.message));
  }

  void admit(kj::Own<kj::AsyncIoStream> io, const std::optional<Identity>& peer) {
    if (!is_bulk_) set_small_window(*io);
    const auto connection =
        std::make_shared<ServerConnection>(timer_, kj::mv(io), bootstrap_(peer));
    connections_.insert(connection);
    tasks_.add(connection->ended().attach(
        kj::defer([this, connection] { connections_.erase(connection); })));
  }
  void taskFailed(kj::Exception&&) override {}  // a connection's end concerns nobody else

  kj::Timer& timer_;
  kj::Own<kj::ConnectionReceiver> receiver_;
  const MakeBootstrap& bootstrap_;
  const Admission& admission_;
  const bool is_on_network_;
  const bool is_bulk_;
  size_t num_strangers_ = 0;  // who have not shown who they are
  std::optional<kj::TimePoint> told_;
  std::set<std::shared_ptr<ServerConnection>> connections_;
  kj::TaskSet tasks_;
};

Status serve(kj::AsyncIoContext& io, Serving& serving, UniqueFd control, UniqueFd listener,
             const MakeBootstrap& make_bootstrap, const Admission& admission) {
  kj::Timer& timer = io.provider->getTimer();
  auto paf = kj::newPromiseAndFulfiller<void>();
  serving.stop = kj::mv(paf.fulfiller);
  std::optional<Door> door;
  std::optional<ServerConnection> first;
  auto ends = serving.inbox->run();
  if (listener.valid()) {
    const bool on_network = is_on_network(listener.get());
    door.emplace(timer,
                 io.lowLevelProvider->wrapListenSocketFd(
                     listener.release(), kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP),
                 make_bootstrap, admission, on_network, serving.is_bulk);
    ends = ends.exclusiveJoin(door->run());
  }
  if (control.valid()) {
    first.emplace(timer,
                  io.lowLevelProvider->wrapSocketFd(control.release(),
                                                    kj::LowLevelAsyncIoProvider::TAKE_OWNERSHIP),
                  make_bootstrap(std::nullopt));
    set_small_window(first->io());
    ends = ends.exclusiveJoin(first->ended());
  }
  bool stopped = false;
  auto stop = paf.promise.then([&]() -> kj::Promise<void> {
    stopped = true;
    auto sent = first ? first->stream().flushed() : kj::Promise<void>(kj::READY_NOW);
    if (door) sent = sent.then([&] { return door->flushed(); });
    return sent.exclusiveJoin(timer.afterDelay(kFlushDeadline));
  });
  ends.exclusiveJoin(kj::mv(stop)).wait(io.waitScope);
  serving.inbox->close();
  if (stopped || !first) return ok_status();
  if (!first->stream().refusal().empty())
    return make_error(ErrorCode::invalid_argument, "control connection: {}",
                      first->stream().refusal());
  if (!first->stream().ended_by_peer())
    return make_error(ErrorCode::disconnected, "the control connection broke its protocol");
  return ok_status();
}

}  // namespace

Serving::Serving(const std::string& build_or_empty)
    : build(build_or_empty.empty() ? build_name() : build_or_empty) {}

Status serve_control(Serving& serving, UniqueFd control, UniqueFd listener,
                     const MakeBootstrap& make_bootstrap, const Admission& admission) {
  CHECK(control.valid() || listener.valid());
  if (listener.valid() && is_on_network(listener.get()) && !admission.credentials)
    return make_error(ErrorCode::invalid_argument,
                      "{}: a socket on a network is served with certificates only",
                      own_address(listener));
  ASSIGN_OR_RETURN(kj::AsyncIoContext io, make_loop());
  Status status = ok_status();
  auto exception = kj::runCatchingExceptions([&] {
    status = serve(io, serving, std::move(control), std::move(listener), make_bootstrap, admission);
    serving.stop = nullptr;
  });
  KJ_IF_MAYBE (e, exception) status = to_error(*e);
  return status;
}

void Peer::check_greeting(uint32_t protocol_version, const std::string& build) {
  if (protocol_version != kProtocolVersion || build != serving_.build)
    kj::throwFatalException(to_exception(
        make_error(ErrorCode::invalid_argument,
                   "the caller is build {} with control protocol {}, this process is build {} with "
                   "protocol {}: start both from the same build",
                   build, protocol_version, serving_.build, kProtocolVersion)));
  greeted_ = true;
}

void Peer::check_greeted_and_room() const {
  if (!greeted_)
    kj::throwFatalException(
        to_exception(make_error(ErrorCode::invalid_argument, "the first call must be hello")));
  if (*num_open_ >= kOpenCallsMax)
    kj::throwFatalException(to_exception(make_error(
        ErrorCode::overloaded, "this connection waits for {} answers already", kOpenCallsMax)));
}

void Peer::check_term() const {
  if (term_ < serving_.newest_term)
    kj::throwFatalException(to_exception(
        make_error(ErrorCode::cancelled, "another coordinator leads, of term {}; this one is of {}",
                   serving_.newest_term, term_)));
}

}  // namespace chainpump::transport::rpc
