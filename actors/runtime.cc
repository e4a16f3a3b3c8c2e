#include "actors/runtime.h"

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <mutex>

#include "actors/backend.h"
#include "actors/callback_scope.h"
#include "actors/lanes.h"

namespace chainpump::actors {
namespace {

constexpr Duration kStopMax = std::chrono::seconds(10);

StageReport from_wire(const rpc::StageReport& r) {
  std::vector<graph::LaneId> lanes;
  for (const uint8_t lane : r.lanes) lanes.push_back(graph::LaneId(lane));
  if (lanes.empty()) lanes.push_back(graph::LaneId(0));
  return {.lanes = std::move(lanes),
          .stage = StageIndex(r.stage),
          .layer_begin = r.layer_begin,
          .layer_end = r.layer_end,
          .pid = r.pid,
          .cores = r.cores,
          .weight_bytes_read = r.weight_bytes_read,
          .weight_bytes_held = r.weight_bytes_held,
          .kv_bytes = r.kv_bytes,
          .steps = r.steps,
          .tokens = r.tokens,
          .tokens_again = r.tokens_held + r.tokens_rebuilt,
          .busy = Duration(r.busy_ns),
          .transfer = Duration(r.transfer_ns),
          .bubble_input = Duration(r.bubble_input_ns),
          .bubble_credit = Duration(r.bubble_credit_ns),
          .idle = Duration(r.bubble_other_ns),
          .node = r.node};
}

LaneReport from_wire(const rpc::LaneReport& r) {
  return {.lane = graph::LaneId(r.lane),
          .num_running = r.num_running,
          .num_waiting = r.num_waiting,
          .num_kv_blocks = r.num_kv_blocks,
          .num_free_kv_blocks = r.num_free_kv_blocks};
}

/// The receiver measures latency and sees what arrived.
LinkReport from_wire(const rpc::LinkReport& r) {
  return {.lane = graph::LaneId(r.lane),
          .edge = EdgeId(r.edge),
          .transport = r.transport,
          .frames = r.frames,
          .payload_bytes = r.payload_bytes,
          .metadata_bytes = r.metadata_bytes,
          .copied_bytes = r.copied_bytes,
          .latency_p50_us = r.latency_p50_us,
          .latency_p99_us = r.latency_p99_us};
}

/// What a backend will answer, for a thread that waits for it.
template <typename T>
class Answer {
 public:
  rpc::Reply<T> reply() {
    return rpc::Reply<T>(
        [promise = promise_](Result<T> result) { promise->set_value(std::move(result)); });
  }
  Result<T> wait(Duration timeout) {
    auto future = promise_->get_future();
    if (future.wait_for(timeout) != std::future_status::ready)
      return make_error(ErrorCode::deadline_exceeded, "a stage did not report in time");
    return future.get();
  }

 private:
  std::shared_ptr<std::promise<Result<T>>> promise_ = std::make_shared<std::promise<Result<T>>>();
};

}  // namespace

struct Runtime::Impl {
  // The backend's callbacks hold the outcome, so it may outlive that.
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  std::unique_ptr<Backend> backend;
  std::atomic<uint64_t> last_request{0};
  std::once_flag stop_once;
};

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Runtime>> Runtime::start(const graph::Plan& plan, RuntimeOptions options) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->backend, make_local_backend(plan, std::move(options), impl->outcome));
  return std::unique_ptr<Runtime>(new Runtime(std::move(impl)));
}

Result<std::unique_ptr<Runtime>> Runtime::attach(const std::string& folder,
                                                 ProgressCallback on_progress) {
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->backend,
                   make_service_backend(folder, std::move(on_progress), impl->outcome));
  return std::unique_ptr<Runtime>(new Runtime(std::move(impl)));
}

Runtime::~Runtime() {
  CHECK_MSG(!t_in_callback, "a runtime may not be destroyed by its own callback");
  stop();
}

Status Runtime::wait_ready(Duration timeout) { return impl_->outcome->wait_ready(timeout); }

RequestId Runtime::submit(SequenceRequest request, Duration timeout,
                          std::vector<SequenceCallbacks> callbacks) {
  CHECK_EQ(static_cast<size_t>(request.num_sequences), callbacks.size());
  const RequestId id(++impl_->last_request);
  if (const auto lanes = impl_->outcome->lanes()) {
    lanes->submit(id, std::move(request), timeout, std::move(callbacks));
  } else {
    for (const SequenceCallbacks& sequence : callbacks)
      sequence.on_end(impl_->outcome->why_not_serving());
  }
  return id;
}

RequestId Runtime::submit(SequenceRequest request, Duration timeout, SequenceCallbacks callbacks) {
  return submit(std::move(request), timeout, std::vector{std::move(callbacks)});
}

void Runtime::cancel(RequestId request) {
  if (const auto lanes = impl_->outcome->lanes()) lanes->cancel(request);
}

Result<RuntimeReport> Runtime::report(Duration timeout) {
  const TimePoint deadline = steady_clock().now() + timeout;
  Answer<std::vector<rpc::RankStats>> stats;
  impl_->backend->stats(timeout, stats.reply());
  const Result<std::vector<rpc::RankStats>> answers = stats.wait(timeout);
  if (!answers.ok())
    return impl_->outcome->with_verdict(answers.error(),
                                        std::max(Duration(0), deadline - steady_clock().now()));
  RuntimeReport report;
  report.numerics_id = impl_->outcome->numerics_id();
  std::map<std::pair<uint8_t, uint32_t>, LinkReport> links;
  std::map<uint8_t, LaneReport> lanes;
  for (const rpc::RankStats& answer : *answers) {
    report.stages.push_back(from_wire(answer.stage));
    for (const rpc::LinkReport& link : answer.links)
      if (!link.outgoing) links[{link.lane, link.edge}] = from_wire(link);
    for (const rpc::LaneReport& lane : answer.lanes) lanes[lane.lane] = from_wire(lane);
  }
  for (auto& [where, link] : links) report.links.push_back(std::move(link));
  for (const auto& [id, lane] : lanes) report.lanes.push_back(lane);
  return report;
}

graph::HealthReport Runtime::health() const {
  graph::HealthReport health = impl_->outcome->health().report();
  if (const std::optional<Error> why = impl_->outcome->why_ended()) {
    health.ready = false;
    health.why = why->message;
  }
  return health;
}

std::shared_ptr<const Planned> Runtime::planned() const { return impl_->outcome->planned(); }

Result<StepEvents> Runtime::trace(RankId rank, uint64_t since, Duration timeout) {
  Answer<StepEvents> answer;
  impl_->backend->trace(rank, since, timeout, answer.reply());
  return answer.wait(timeout);
}

void Runtime::stop() {
  impl_->backend->request_stop();
  if (t_in_callback) return;  // the threads to be ended include this one
  std::call_once(impl_->stop_once, [this] {
    impl_->outcome->wait_stopped(kStopMax);
    impl_->outcome->drop_ports();
    impl_->backend->end();
  });
}

}  // namespace chainpump::actors
