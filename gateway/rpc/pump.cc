#include "gateway/rpc/pump.h"

#include "gateway/rpc/convert.h"

namespace chainpump::gateway::rpc {

Pump::~Pump() {
  if (telling_) --serving_.num_telling;
  if (generation_) generation_->cancel();
}

Wake Pump::wake_of() {
  return [inbox = serving_.inbox, weak = weak_from_this()] {
    inbox->post([weak] {
      if (const auto alive = weak.lock()) alive->wake();
    });
  };
}

void Pump::begin(std::shared_ptr<Generation> generation) {
  generation_ = std::move(generation);
  wake();
}

void Pump::wake() {
  if (running_ || !generation_) return;
  running_ = true;
  // Later, so that this object may go when its client does, whoever's turn it is.
  task_ = kj::evalLater([this] { return drain(); }).eagerlyEvaluate([this](kj::Exception&&) {
    generation_->cancel();  // its sink is gone
    ended();
  });
}

kj::Promise<void> Pump::drain() {
  auto update = std::make_shared<Update>(generation_->take());
  if (update->empty()) {
    // At once: the next wake must not find it running.
    running_ = false;
    return kj::READY_NOW;
  }
  kj::Promise<void> sent = kj::READY_NOW;
  if (!update->deltas.empty()) {
    auto request = sink_.deltaRequest();
    auto deltas = request.initDeltas(static_cast<uint32_t>(update->deltas.size()));
    for (uint32_t i = 0; i < deltas.size(); ++i) write(deltas[i], update->deltas[i]);
    sent = request.send();
  }
  if (!update->end) return sent.then([this] { return drain(); });
  telling_ = true;
  ++serving_.num_telling;
  return sent
      .then([this, update] {
        auto request = sink_.doneRequest();
        write(request.initOutcome(), *update->end);
        return request.send().ignoreResult();
      })
      .then([this] { ended(); });
}

void Pump::ended() {
  place_.give_back();
  if (std::exchange(telling_, false)) --serving_.num_telling;
}

}  // namespace chainpump::gateway::rpc
