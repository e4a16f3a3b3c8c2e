// Sends one client's results; lives in the loop, as part of the client's lane. Includes the RPC
// library's headers: for transport/rpc/*.cc only.
#pragma once

#include <kj/async.h>

#include <memory>

#include "schemas/control.capnp.h"
#include "transport/rpc/result_queue.h"

namespace chainpump::transport::rpc {

class ResultPump {
 public:
  ResultPump(schema::LaneSink::Client sink, std::shared_ptr<ResultQueue> queue)
      : queue_(std::move(queue)), sink_(kj::mv(sink)) {}
  ~ResultPump() { queue_->close(); }

  /// There may be results.
  void wake();

 private:
  kj::Promise<void> drain();
  kj::Promise<void> send(const std::shared_ptr<LaneResults>& batch, size_t first);

  std::shared_ptr<ResultQueue> queue_;
  schema::LaneSink::Client sink_;
  bool running_ = false;
  kj::Promise<void> task_ = kj::READY_NOW;
};

}  // namespace chainpump::transport::rpc
