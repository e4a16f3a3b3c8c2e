// What all connections of a gateway's server share, and what one connection has used up. Includes
// the RPC library's headers: for gateway/rpc/*.cc only. The loop's thread, where nothing else is
// said.
#pragma once

#include <kj/async-io.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "gateway/core.h"
#include "gateway/rpc/server.h"
#include "transport/rpc/loop.h"

namespace chainpump::gateway::rpc {

/// A thread for what would hold up the loop; tasks in the order posted. Its end drops what waits.
class Worker {
 public:
  Worker();
  ~Worker();
  void post(std::function<void()> task);  // any thread

 private:
  void main();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

struct Serving;

/// What is to be told of the time, about ten times a second, as long as it lives.
class Ticked {
 public:
  explicit Ticked(Serving& serving);
  virtual ~Ticked() noexcept(false);
  Ticked(const Ticked&) = delete;
  Ticked& operator=(const Ticked&) = delete;
  virtual void tick() = 0;

 private:
  Serving& serving_;
};

struct Serving {
  Core& core;
  const ServerOptions& options;
  std::set<Ticked*> ticked = {};  // order does not matter: each looks after itself
  std::shared_ptr<transport::rpc::Inbox> inbox = std::make_shared<transport::rpc::Inbox>();
  Worker prompts = {};
  Worker reports = {};
  int32_t num_telling = 0;  // clients that are being told of an end

  /// Resolves when requests can be served; rejects if they never will be.
  kj::Promise<void> wait_ready();

  /// Runs `work` on a worker and its result in the loop: in `then`, for as long as the promise that
  /// this returns lives, else in `dropped`.
  template <typename T>
  kj::Promise<T> off_loop(
      Worker& worker, std::function<T()> work, std::function<void(T)> dropped = [](T) {}) {
    auto paf = kj::newPromiseAndFulfiller<T>();
    using Fulfiller = kj::Own<kj::PromiseFulfiller<T>>;
    auto fulfiller = std::make_shared<Fulfiller>(kj::mv(paf.fulfiller));
    worker.post([to = inbox, weak = std::weak_ptr(fulfiller), work = std::move(work),
                 dropped = std::move(dropped)] {
      auto result = std::make_shared<T>(work());
      to->post([weak, dropped, result] {
        if (const auto alive = weak.lock())
          (*alive)->fulfill(std::move(*result));
        else
          dropped(std::move(*result));
      });
    });
    return paf.promise.attach(kj::mv(fulfiller));
  }
};

/// What one connection holds, against its limits.
struct Peer {
  bool may_enter = false;  // the system says that it is one of ours
  int32_t num_requests = 0;
  int32_t num_generations = 0;
  int32_t num_sessions = 0;
  int32_t num_operators = 0;
  int32_t num_watches = 0;
};

/// One of a limited number; given back with its end. Throws `overloaded` where there is none left.
class Place {
 public:
  Place(std::shared_ptr<Peer> peer, int32_t Peer::*count, int32_t max, const char* what);
  Place(Place&&) = default;
  ~Place() {
    if (peer_) --((*peer_).*count_);
  }
  void give_back() {
    if (peer_) --((*peer_).*count_);
    peer_.reset();
  }

 private:
  std::shared_ptr<Peer> peer_;
  int32_t Peer::*count_;
};

/// The value, or the library's exception with our error.
template <typename T>
T value_of(Result<T> result) {
  if (!result.ok()) kj::throwFatalException(transport::rpc::to_exception(result.error()));
  return std::move(result).value();
}

}  // namespace chainpump::gateway::rpc
