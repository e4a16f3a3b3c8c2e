// The caller's side of one control connection, and the thread that runs all of them. Includes the
// RPC library's headers: for transport/rpc/*.cc only.
#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include <atomic>
#include <future>
#include <map>
#include <optional>
#include <thread>

#include "schemas/control.capnp.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/message_stream.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::transport::rpc {

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

/// One connection; lives on the RPC thread.
class Connection final : public kj::TaskSet::ErrorHandler {
 public:
  /// `peer` is who is at the other end, for messages: "the rank".
  Connection(kj::AsyncIoContext& io, Channel channel, const char* peer,
             std::function<void(Error)> on_disconnect);

  /// Starts a call and sees to its deadline; Duration::max() is none.
  template <typename T>
  void run(const std::shared_ptr<Call<T>>& call, const char* name, Duration deadline,
           kj::Promise<T> started) {
    if (deadline != Duration::max())
      started = started.exclusiveJoin(timer_.afterDelay(to_kj(deadline))
                                          .then([peer = peer_, name, deadline]() -> kj::Promise<T> {
                                            return to_exception(
                                                make_error(ErrorCode::deadline_exceeded,
                                                           "{} did not answer `{}` within {:.3g} s",
                                                           peer, name, to_seconds(deadline)));
                                          }));
    tasks_.add(
        started.then([call](T value) { call->finish(std::move(value)); },
                     [call](kj::Exception&& exception) { call->finish(to_error(exception)); }));
  }

  template <typename Api>
  typename Api::Client api() {
    return bootstrap_.castAs<Api>();
  }

 private:
  capnp::Capability::Client bootstrap();
  void lost();
  void taskFailed(kj::Exception&&) override { lost(); }

  const char* peer_;
  kj::Timer& timer_;
  kj::Own<kj::AsyncIoStream> io_;
  CheckedMessageStream stream_;
  capnp::TwoPartyVatNetwork network_;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc_;
  capnp::Capability::Client bootstrap_;

 public:
  /// What each `attach` gave, by lane; only on a connection to a rank.
  std::map<uint8_t, schema::Lane::Client> lanes;

 private:
  std::function<void(Error)> on_disconnect_;
  kj::TaskSet tasks_;  // ends first: it answers the open calls
};

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
  void main(std::promise<Status>& ready);

  /// Any thread: a new connection's number.
  uint64_t open(Channel channel, const char* peer, std::function<void(Error)> on_disconnect);
  /// Any thread. Open calls are answered with `cancelled`; on another thread than this one no
  /// callback runs after this returns.
  void drop(uint64_t id);

  /// Any thread. `start` runs on this one.
  template <typename T, typename Start>
  void with_connection(uint64_t id, const char* name, Duration deadline, Callback<T> callback,
                       Start start) {
    auto call = std::make_shared<Call<T>>(std::move(callback));
    inbox.post([this, id, name, deadline, call, start = std::move(start)] {
      const auto found = connections.find(id);
      if (found == connections.end()) return;
      Connection& connection = *found->second;
      connection.run<T>(call, name, deadline,
                        kj::evalNow([&]() -> kj::Promise<T> { return start(connection); }));
    });
  }
  /// The same for a call on what the peer serves first.
  template <typename T, typename Api = schema::Rank>
  void call(uint64_t id, const char* name, Duration deadline, Callback<T> callback,
            std::function<kj::Promise<T>(typename Api::Client&)> start) {
    with_connection<T>(id, name, deadline, std::move(callback),
                       [start = std::move(start)](Connection& connection) {
                         auto api = connection.api<Api>();
                         return start(api);
                       });
  }
};

/// The `hello` that every interface has.
template <typename Api>
kj::Promise<HelloReply> say_hello(typename Api::Client& api) {
  auto request = api.helloRequest();
  request.setProtocolVersion(kProtocolVersion);
  request.setBuild(build_name().c_str());
  return request.send().then([](auto&& response) {
    return HelloReply{response.getProtocolVersion(), response.getBuild().cStr(), response.getPid()};
  });
}

}  // namespace chainpump::transport::rpc
