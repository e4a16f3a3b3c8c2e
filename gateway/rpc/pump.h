// Delivers a generation to its client's sink, at the client's pace: the next call is made when the
// library's window has room for it. Includes the RPC library's headers: for gateway/rpc/*.cc only.
// The loop's thread, but for what wake_of() gives.
#pragma once

#include <memory>

#include "gateway/rpc/serving.h"
#include "schemas/chainpump.capnp.h"

namespace chainpump::gateway::rpc {

class Pump final : public std::enable_shared_from_this<Pump> {
 public:
  /// `place` is given back with the request's end, `held` with this object's.
  Pump(Serving& serving, schema::api::Sink::Client sink, Place place, Place held)
      : serving_(serving), sink_(kj::mv(sink)), place_(std::move(place)), held_(std::move(held)) {}
  /// Cancels the request, unless it has ended.
  ~Pump();

  /// For Core::generate(): sets the pump going, from any thread.
  Wake wake_of();
  /// Once.
  void begin(std::shared_ptr<Generation> generation);
  void cancel() { generation_->cancel(); }

 private:
  void wake();
  kj::Promise<void> drain();
  void ended();

  Serving& serving_;
  schema::api::Sink::Client sink_;
  Place place_;
  Place held_;
  std::shared_ptr<Generation> generation_;
  bool running_ = false;
  bool telling_ = false;  // the end has been taken, and not yet told
  kj::Promise<void> task_ = kj::READY_NOW;
};

}  // namespace chainpump::gateway::rpc
