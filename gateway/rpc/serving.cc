#include "gateway/rpc/serving.h"

namespace chainpump::gateway::rpc {

Worker::Worker() : thread_([this] { main(); }) {}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void Worker::post(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.notify_one();
}

void Worker::main() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

Ticked::Ticked(Serving& serving) : serving_(serving) { serving_.ticked.insert(this); }

Ticked::~Ticked() noexcept(false) { serving_.ticked.erase(this); }

namespace {

class ReadyCall final : public Ticked {
 public:
  ReadyCall(Serving& serving, kj::Own<kj::PromiseFulfiller<void>> fulfiller)
      : Ticked(serving), core_(serving.core), fulfiller_(kj::mv(fulfiller)) {}
  void tick() override {
    const Status open = core_.check_open();
    if (open.ok())
      fulfiller_->fulfill();
    else if (core_.phase() != Phase::loading)
      fulfiller_->reject(transport::rpc::to_exception(open.error()));
  }

 private:
  Core& core_;
  kj::Own<kj::PromiseFulfiller<void>> fulfiller_;
};

}  // namespace

kj::Promise<void> Serving::wait_ready() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto call = kj::heap<ReadyCall>(*this, kj::mv(paf.fulfiller));
  call->tick();
  return paf.promise.attach(kj::mv(call));
}

Place::Place(std::shared_ptr<Peer> peer, int32_t Peer::*count, int32_t max, const char* what)
    : count_(count) {
  if ((*peer).*count >= max)
    kj::throwFatalException(transport::rpc::to_exception(make_error(
        ErrorCode::overloaded, "this connection has {} {} already; retry after 1 s", max, what)));
  ++((*peer).*count);
  peer_ = std::move(peer);
}

}  // namespace chainpump::gateway::rpc
