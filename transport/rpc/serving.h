// What the servers of control have in common: a loop that serves an inherited connection, a
// listening socket, or both, and how a call is answered from another thread. Includes the RPC
// library's headers: for transport/rpc/*.cc only. The loop's thread, where nothing else is said.
#pragma once

#include <capnp/capability.h>
#include <kj/async-io.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"
#include "transport/rpc/loop.h"
#include "transport/rpc/reply.h"

namespace chainpump::transport::rpc {

/// What all connections of one server share.
struct Serving {
  explicit Serving(const std::string& build_or_empty);
  std::string build;
  std::shared_ptr<Inbox> inbox = std::make_shared<Inbox>();
  kj::Own<kj::PromiseFulfiller<void>> stop = {};
  uint64_t newest_term = 0;  // of a coordinator, that any connection has told
  bool is_bulk = false;      // answers are large, and none is urgent
};

/// Makes what a new connection is given first; who it is, where that came over a network.
using MakeBootstrap = std::function<capnp::Capability::Client(const std::optional<Identity>& peer)>;

/// Serves until serving.stop is fulfilled, whose caller's answer is still sent (ok), the peer of
/// `control` ended that connection (ok), or it broke a limit or the protocol (invalid_argument,
/// disconnected). What peers of `listener` do ends their own connection only. Either may be
/// invalid, not both. invalid_argument: `listener` is on a network, and nobody is admitted there.
Status serve_control(Serving& serving, UniqueFd control, UniqueFd listener,
                     const MakeBootstrap& make_bootstrap, const Admission& admission = {});

template <typename T>
T& value_of(Result<T>& result) {
  if (!result.ok()) kj::throwFatalException(to_exception(result.error()));
  return result.value();
}

/// One connection's peer: whether it said hello, and how many answers it waits for.
class Peer {
 public:
  explicit Peer(Serving& serving) : serving_(serving) {}

  /// Answers hello. Throws invalid_argument naming both sides unless they are one protocol and
  /// build.
  template <typename HelloContext>
  void greet(HelloContext& context) {
    const auto params = context.getParams();
    check_greeting(params.getProtocolVersion(), params.getBuild());
    auto results = context.getResults();
    results.setProtocolVersion(kProtocolVersion);
    results.setBuild(serving_.build.c_str());
    results.setPid(getpid());
  }

  /// First of all in every other call. Throws invalid_argument before hello, overloaded.
  template <typename Context>
  void check(Context& context) {
    context.allowCancellation();
    check_greeted_and_room();
  }

  /// Counts as a call that waits for its answer, for as long as it lives.
  auto open_call() {
    ++*num_open_;
    return kj::defer([num_open = num_open_] { --*num_open; });
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
    return {paf.promise.attach(kj::mv(fulfiller), open_call()), std::move(reply)};
  }

  Serving& serving() { return serving_; }

  /// The peer is a coordinator of that term. Throws cancelled if another leads by now.
  void begin_term(uint64_t term) {
    term_ = term;
    check_term();
    serving_.newest_term = term;
  }
  /// First of all in what only the coordinator that leads may order.
  void check_term() const;

 private:
  void check_greeting(uint32_t protocol_version, const std::string& build);
  void check_greeted_and_room() const;

  Serving& serving_;
  bool greeted_ = false;
  uint64_t term_ = 0;
  std::shared_ptr<int> num_open_ = std::make_shared<int>(0);
};

}  // namespace chainpump::transport::rpc
