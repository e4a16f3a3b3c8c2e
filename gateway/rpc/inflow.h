// What a client's sink has been given and nobody has taken yet: filled by the connection's thread,
// emptied by the client's. Includes the RPC library's headers: for gateway/rpc/*.cc only.
#pragma once

#include <kj/async.h>

#include <condition_variable>
#include <memory>
#include <mutex>

#include "gateway/types.h"
#include "schemas/chainpump.capnp.h"
#include "transport/rpc/loop.h"

namespace chainpump::gateway::rpc {

class Inflow : public std::enable_shared_from_this<Inflow> {
 public:
  explicit Inflow(std::shared_ptr<transport::rpc::Inbox> inbox) : inbox_(std::move(inbox)) {}

  // The client's side:
  /// An empty update if there is nothing within `patience`.
  Update next(Duration patience);
  /// The end is to come within about a second; else it is `cancelled` all the same.
  void cancel();
  bool ended();

  // The connection's thread:
  /// Resolves when there is room for more.
  kj::Promise<void> push(std::vector<Delta> deltas);
  /// The first one counts.
  void finish(Result<Usage> end);

 private:
  std::shared_ptr<transport::rpc::Inbox> inbox_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Update update_;
  size_t num_tokens_ = 0;  // in update_
  bool finished_ = false;
  std::optional<TimePoint> cancelled_;
  kj::Own<kj::PromiseFulfiller<void>> room_;  // the connection's thread only
  bool full_ = false;
};

/// The capability that fills one; with its end, if there was none, comes `disconnected`.
kj::Own<schema::api::Sink::Server> make_sink_server(std::shared_ptr<Inflow> inflow);

}  // namespace chainpump::gateway::rpc
