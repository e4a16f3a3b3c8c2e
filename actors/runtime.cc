#include "actors/runtime.h"

#include <atomic>
#include <caf/scoped_actor.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>

#include "actors/actor_system.h"
#include "actors/convert.h"
#include "actors/coordinator.h"
#include "actors/node_agent.h"
#include "actors/os/process.h"
#include "actors/supervisor.h"

namespace chainpump::actors {
namespace {

// A stage notices its neighbour's death before the coordinator can say whose death it was; so a
// request that lost its connection waits this long for the better reason.
constexpr Duration kVerdictWait = std::chrono::milliseconds(850);
constexpr Duration kStopMax = std::chrono::seconds(10);
constexpr Duration kControlDeadline = std::chrono::seconds(5);

StageReport from_wire(const rpc::StageReport& r) {
  return {.stage = StageIndex(r.stage),
          .layer_begin = r.layer_begin,
          .layer_end = r.layer_end,
          .pid = r.pid,
          .cores = r.cores,
          .weight_bytes_read = r.weight_bytes_read,
          .weight_bytes_held = r.weight_bytes_held,
          .kv_bytes = r.kv_bytes,
          .steps = r.steps,
          .tokens = r.tokens,
          .busy = Duration(r.busy_ns),
          .transfer = Duration(r.transfer_ns),
          .bubble_input = Duration(r.bubble_input_ns),
          .bubble_credit = Duration(r.bubble_credit_ns),
          .idle = Duration(r.bubble_other_ns)};
}

/// The receiver measures latency and sees what arrived.
LinkReport from_wire(const rpc::LinkReport& r) {
  return {.edge = EdgeId(r.edge),
          .transport = r.transport,
          .frames = r.frames,
          .payload_bytes = r.payload_bytes,
          .metadata_bytes = r.metadata_bytes,
          .copied_bytes = r.copied_bytes,
          .latency_p50_us = r.latency_p50_us,
          .latency_p99_us = r.latency_p99_us};
}

/// Whether this thread is inside a callback of a runtime.
thread_local bool t_in_callback = false;

/// One sequence's way to its caller, who gets every token in order up to the one that ends it, or
/// an error: never an answer with a piece missing.
struct Delivery {
  SequenceCallbacks callbacks;
  int32_t next_position;
  bool complete;  // its last token has come; a sequence that is scored has none
  bool torn = false;

  void take(const rpc::TokenResult& token) {
    torn |= complete || token.position != next_position;
    if (torn) return;
    ++next_position;
    complete = token.finish != rpc::FinishReason::none;
    callbacks.on_token(actors::from_wire(token));
  }
  Result<Ok> checked(Result<Ok> end) const {
    if (!end.ok() || (complete && !torn)) return end;
    return make_error(ErrorCode::internal,
                      "tokens were lost on the way from the first stage: the answer breaks off at "
                      "position {}",
                      next_position);
  }
};

struct CallbackScope {
  bool before = std::exchange(t_in_callback, true);
  CallbackScope() = default;
  ~CallbackScope() { t_in_callback = before; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
};

/// What became of the deployment, as all threads see it.
class Outcome {
 public:
  void set_serving(std::vector<std::shared_ptr<RankPort>> ports, std::string numerics_id) {
    update([&] {
      ports_ = std::move(ports);
      numerics_id_ = std::move(numerics_id);
    });
  }
  void set_failed(Error error) {
    update([&] {
      if (!failure_) failure_ = std::move(error);
    });
  }
  void set_stopped() {
    update([&] { stopped_ = true; });
  }

  /// Waits for the first of: serving, failed, stopped.
  Status wait_ready(Duration timeout) {
    std::unique_lock lock(mutex_);
    const bool known =
        changed_.wait_for(lock, timeout, [&] { return !ports_.empty() || failure_ || stopped_; });
    if (failure_) return *failure_;
    if (!known)
      return make_error(ErrorCode::deadline_exceeded, "the stages were not ready in time");
    if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
    return ok_status();
  }
  Error why_not_serving() {
    const std::lock_guard lock(mutex_);
    if (failure_) return *failure_;
    if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
    return make_error(ErrorCode::overloaded, "the stages are not ready yet");
  }
  bool wait_stopped(Duration timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return stopped_; });
  }
  /// A call's end; where it ended because the deployment did, with the deployment's reason.
  Result<Ok> with_reason(Result<Ok> end) {
    if (end.ok()) return end;
    std::unique_lock lock(mutex_);
    if (end.error().code == ErrorCode::disconnected)
      changed_.wait_for(lock, kVerdictWait, [&] { return failure_ || stopped_; });
    if (failure_) return *failure_;
    if (stopped_) return make_error(ErrorCode::cancelled, "the deployment was stopped");
    return end;
  }
  std::vector<std::shared_ptr<RankPort>> ports() {
    const std::lock_guard lock(mutex_);
    return ports_;
  }
  std::string numerics_id() {
    const std::lock_guard lock(mutex_);
    return numerics_id_;
  }
  void drop_ports() {
    update([&] { ports_.clear(); });
  }

 private:
  template <typename F>
  void update(F&& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<RankPort>> ports_;
  std::string numerics_id_;
  std::optional<Error> failure_;
  bool stopped_ = false;
};

}  // namespace

struct Runtime::Impl {
  explicit Impl(ActorSystem system) : actors(std::move(system)) {}

  // The observer's callbacks hold the outcome, so it may outlive the actors.
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  ActorSystem actors;
  CoordinatorActor coordinator;
  AgentActor agent;
  std::atomic<uint64_t> last_request{0};
  std::once_flag stop_once;

  DeploymentObserver observer(RuntimeOptions& options) {
    return {.on_progress =
                [report = options.on_progress](StageIndex stage, int64_t done, int64_t total) {
                  const CallbackScope scope;
                  if (report) report(stage, done, total);
                },
            .on_serving =
                [o = outcome](auto ports, const auto& reports) {
                  o->set_serving(std::move(ports), reports.front().numerics_id);
                },
            .on_failed = [o = outcome](Error error) { o->set_failed(std::move(error)); },
            .on_stopped = [o = outcome] { o->set_stopped(); }};
  }
};

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Runtime>> Runtime::start(const graph::Plan& plan, RuntimeOptions options) {
  ASSIGN_OR_RETURN(ActorSystem actors, ActorSystem::create());
  auto impl = std::make_unique<Impl>(std::move(actors));
  caf::actor_system& system = impl->actors.system();
  const std::string program = options.rank_program.empty() ? os::self_exe() : options.rank_program;
  // A token comes when the first stage begins the next step: taking it must not delay that.
  Result<AgentActor> agent =
      spawn_node_agent(system, [&system, program, in_process = options.in_process,
                                busy = plan.stages.front().device.cores](RankHost::OnExit on_exit) {
        if (!in_process) return make_process_host(program, std::move(on_exit), busy);
        return Result<std::unique_ptr<RankHost>>(make_local_host(system, std::move(on_exit)));
      });
  if (!agent.ok()) return std::move(agent).error();
  impl->agent = *std::move(agent);
  impl->coordinator = spawn_coordinator(system,
                                        {.plan = plan,
                                         .isa = options.isa,
                                         .spin_between_ops = options.spin_between_ops,
                                         .cache_folder = options.cache_folder},
                                        impl->agent, impl->observer(options), steady_clock());
  spawn_supervisor(system,
                   {{"coordinator", caf::actor_cast<caf::actor>(impl->coordinator)},
                    {"node agent", caf::actor_cast<caf::actor>(impl->agent)}},
                   [o = impl->outcome](Error error) {
                     o->set_failed(std::move(error));
                     o->set_stopped();
                   });
  return std::unique_ptr<Runtime>(new Runtime(std::move(impl)));
}

Runtime::~Runtime() {
  CHECK_MSG(!t_in_callback, "a runtime may not be destroyed by its own callback");
  stop();
}

Status Runtime::wait_ready(Duration timeout) { return impl_->outcome->wait_ready(timeout); }

RequestId Runtime::submit(SequenceRequest request, Duration timeout, SequenceCallbacks callbacks) {
  const RequestId id(++impl_->last_request);
  auto ports = impl_->outcome->ports();
  const auto shared = std::make_shared<Delivery>(
      Delivery{.callbacks = std::move(callbacks),
               .next_position = static_cast<int32_t>(request.prompt.size()),
               .complete = request.score.first_position >= 0});
  if (ports.empty()) {
    shared->callbacks.on_end(impl_->outcome->why_not_serving());
    return id;
  }
  rpc::GenerateRequest wire;
  wire.request_id = id.value;
  wire.sequence_index = request.sequence_index;
  wire.prompt = std::move(request.prompt);
  wire.sampling = to_wire(request.sampling);
  wire.score = {.first_position = request.score.first_position,
                .full_path = std::move(request.score.full_path)};
  ports.front()->submit(
      std::move(wire), timeout,
      {.on_tokens =
           [shared](const std::vector<rpc::TokenResult>& tokens) {
             const CallbackScope scope;
             for (const auto& token : tokens) shared->take(token);
           },
       .on_scores =
           [shared](const std::vector<rpc::ScoreResult>& scores) {
             const CallbackScope scope;
             for (const auto& score : scores) shared->callbacks.on_score(actors::from_wire(score));
           }},
      [shared, outcome = impl_->outcome](Result<Ok> end) {
        const CallbackScope scope;
        shared->callbacks.on_end(outcome->with_reason(shared->checked(std::move(end))));
      });
  return id;
}

void Runtime::cancel(RequestId request) {
  const auto ports = impl_->outcome->ports();
  if (!ports.empty())
    ports.front()->cancel(request.value, kControlDeadline, [](const Result<Ok>&) {});
}

Result<RuntimeReport> Runtime::report(Duration timeout) {
  struct Gathered {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<size_t, Result<rpc::RankStats>> answers;
  };
  const auto gathered = std::make_shared<Gathered>();
  const auto ports = impl_->outcome->ports();
  if (ports.empty()) return impl_->outcome->why_not_serving();
  for (size_t i = 0; i < ports.size(); ++i)
    ports[i]->stats(timeout, [gathered, i](Result<rpc::RankStats> stats) {
      const std::lock_guard lock(gathered->mutex);
      gathered->answers.emplace(i, std::move(stats));
      gathered->changed.notify_all();
    });
  std::unique_lock lock(gathered->mutex);
  const auto complete = [&] { return gathered->answers.size() == ports.size(); };
  if (!gathered->changed.wait_for(lock, timeout, complete))
    return make_error(ErrorCode::deadline_exceeded, "a stage did not report in time");
  RuntimeReport report{.numerics_id = impl_->outcome->numerics_id(), .stages = {}, .links = {}};
  std::map<uint32_t, LinkReport> links;
  for (const auto& [index, answer] : gathered->answers) {
    if (!answer.ok()) return impl_->outcome->with_reason(answer.error()).error();
    report.stages.push_back(from_wire(answer->stage));
    for (const rpc::LinkReport& link : answer->links)
      if (!link.outgoing) links[link.edge] = from_wire(link);
  }
  for (auto& [edge, link] : links) report.links.push_back(std::move(link));
  return report;
}

void Runtime::stop() {
  tell(impl_->coordinator, graph::Deployment::StopRequested{});
  if (t_in_callback) return;  // the threads to be ended include this one
  std::call_once(impl_->stop_once, [this] {
    impl_->outcome->wait_stopped(kStopMax);
    impl_->outcome->drop_ports();
    // With the agent end its ranks, if any is left, and the thread that calls back.
    caf::scoped_actor self{impl_->actors.system()};
    self->monitor(impl_->agent);
    caf::anon_send_exit(impl_->coordinator, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(impl_->agent, caf::exit_reason::user_shutdown);
    self->receive([](const caf::down_msg&) {}, caf::after(kStopMax) >> [] {});
  });
}

}  // namespace chainpump::actors
