#include "gateway/rpc/inflow.h"

#include "gateway/rpc/convert.h"

namespace chainpump::gateway::rpc {
namespace {

constexpr size_t kTokensMax = 4096;  // kept here before the gateway is made to wait
constexpr Duration kEndMax = std::chrono::milliseconds(1500);

class SinkServer final : public api::Sink::Server {
 public:
  explicit SinkServer(std::shared_ptr<Inflow> inflow) : inflow_(std::move(inflow)) {}
  ~SinkServer() { inflow_->finish(gone()); }
  kj::Promise<void> delta(DeltaContext context) override {
    std::vector<Delta> deltas;
    for (const auto delta : context.getParams().getDeltas()) deltas.push_back(read(delta));
    return inflow_->push(std::move(deltas));
  }
  kj::Promise<void> done(DoneContext context) override {
    inflow_->finish(read(context.getParams().getOutcome()));
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<Inflow> inflow_;
};

}  // namespace

kj::Own<api::Sink::Server> make_sink_server(std::shared_ptr<Inflow> inflow) {
  return kj::heap<SinkServer>(std::move(inflow));
}

Update Inflow::next(Duration patience) {
  std::unique_lock lock(mutex_);
  const TimePoint until = steady_clock().now() + patience;
  while (update_.empty() && !finished_) {
    TimePoint wake = until;
    if (cancelled_ && !finished_) wake = std::min(wake, *cancelled_ + kEndMax);
    const TimePoint now = steady_clock().now();
    if (now < wake) {
      changed_.wait_for(lock, wake - now);
      continue;
    }
    if (wake == until) break;
    finished_ = true;
    update_.end = make_error(ErrorCode::cancelled, "the request was cancelled; nobody said so");
  }
  num_tokens_ = 0;
  if (std::exchange(full_, false))
    inbox_->post([weak = weak_from_this()] {
      if (const auto alive = weak.lock(); alive && alive->room_.get() != nullptr)
        alive->room_->fulfill();
    });
  return std::exchange(update_, Update{});
}

void Inflow::cancel() {
  const std::lock_guard lock(mutex_);
  if (!cancelled_) cancelled_ = steady_clock().now();
  changed_.notify_one();
}

bool Inflow::ended() {
  const std::lock_guard lock(mutex_);
  return finished_;
}

kj::Promise<void> Inflow::push(std::vector<Delta> deltas) {
  const std::lock_guard lock(mutex_);
  if (finished_) return kj::READY_NOW;
  for (Delta& delta : deltas) {
    num_tokens_ += delta.tokens.size();
    update_.deltas.push_back(std::move(delta));
  }
  changed_.notify_one();
  if (num_tokens_ < kTokensMax) return kj::READY_NOW;
  full_ = true;
  auto paf = kj::newPromiseAndFulfiller<void>();
  room_ = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void Inflow::finish(Result<Usage> end) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  update_.end = std::move(end);
  changed_.notify_one();
}

}  // namespace chainpump::gateway::rpc
