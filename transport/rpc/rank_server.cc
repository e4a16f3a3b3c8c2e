#include "transport/rpc/rank_server.h"

#include <kj/async-io.h>

#include <mutex>
#include <set>

#include "transport/rpc/convert.h"
#include "transport/rpc/fields.h"
#include "transport/rpc/result_pump.h"
#include "transport/rpc/serving.h"

namespace chainpump::transport::rpc {
namespace {

/// Sends the latest progress, one report in flight at a time.
struct ProgressState {
  std::mutex mutex;
  int64_t done = 0;
  int64_t total = 0;
  bool posted = false;
};

class ProgressPump {
 public:
  ProgressPump(schema::ProgressSink::Client sink, std::shared_ptr<ProgressState> state)
      : state_(std::move(state)), sink_(kj::mv(sink)) {}
  void wake() {
    auto request = sink_.reportRequest();
    {
      const std::lock_guard lock(state_->mutex);
      state_->posted = false;
      request.setBytesDone(state_->done);
      request.setBytesTotal(state_->total);
    }
    task_ = task_.then([request = kj::mv(request)]() mutable { return request.send(); })
                .eagerlyEvaluate([](kj::Exception&&) {});
  }

 private:
  std::shared_ptr<ProgressState> state_;
  schema::ProgressSink::Client sink_;
  kj::Promise<void> task_ = kj::READY_NOW;
};

/// What the connections of a rank share.
struct RankServing : Serving {
  RankServing(RankHandler& rank, const RankServerOptions& given)
      : Serving(given.build), handler(rank), options(given) {}
  RankHandler& handler;
  const RankServerOptions& options;
  uint64_t last_client = 0;
};

class LaneServer final : public schema::Lane::Server {
 public:
  LaneServer(RankServing& serving, std::shared_ptr<Peer> peer, uint64_t client,
             std::shared_ptr<ResultPump> pump)
      : serving_(serving), peer_(std::move(peer)), client_(client), pump_(std::move(pump)) {}
  ~LaneServer() noexcept {
    pump_.reset();  // takes nothing more, so that the rank may rely on it
    serving_.handler.on_detach(client_);
  }
  KJ_DISALLOW_COPY(LaneServer);

  kj::Promise<void> submit(SubmitContext context) override {
    peer_->check(context);
    std::vector<GenerateRequest> requests;
    read_list(context.getParams().getRequests(), requests);
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_submit(client_, std::move(requests), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> cancel(CancelContext context) override {
    peer_->check(context);
    std::vector<uint64_t> ids;
    for (const uint64_t id : context.getParams().getRequestIds()) ids.push_back(id);
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_cancel(client_, std::move(ids), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

 private:
  RankServing& serving_;
  std::shared_ptr<Peer> peer_;
  uint64_t client_;
  std::shared_ptr<ResultPump> pump_;
};

class RankServer final : public schema::Rank::Server {
 public:
  explicit RankServer(RankServing& serving)
      : serving_(serving), peer_(std::make_shared<Peer>(serving)) {}

  kj::Promise<void> hello(HelloContext context) override {
    peer_->greet(context);
    return kj::READY_NOW;
  }

  kj::Promise<void> load(LoadContext context) override {
    peer_->check(context);
    rpc::LoadParams params;
    read(context.getParams().getParams(), params);
    peer_->begin_term(params.term);
    auto [pump, report] = make_progress(context.getParams().getProgress());
    auto [promise, reply] = peer_->make_reply<LoadReport>();
    serving_.handler.on_load(std::move(params), report, std::move(reply));
    return promise
        .then([context](Result<LoadReport> result) mutable {
          write(context.getResults().initReport(), value_of(result));
        })
        .attach(kj::mv(pump));
  }

  kj::Promise<void> connect(ConnectContext context) override {
    peer_->check(context);
    peer_->check_term();
    rpc::ConnectParams params;
    params.epoch = context.getParams().getEpoch();
    read_list(context.getParams().getLinks(), params.links);
    read_list(context.getParams().getAccept(), params.accept);
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_connect(std::move(params), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> attach(AttachContext context) override {
    peer_->check(context);
    const uint8_t lane_id = context.getParams().getLaneId();
    if (!attached_.insert(lane_id).second)
      return to_exception(make_error(ErrorCode::invalid_argument,
                                     "this connection has attached to lane {} already", lane_id));
    auto queue = std::make_shared<ResultQueue>(serving_.options.sink_results_max);
    auto pump = std::make_shared<ResultPump>(context.getParams().getSink(), queue);
    queue->set_wake([inbox = serving_.inbox, weak = std::weak_ptr(pump)] {
      inbox->post([weak] {
        if (const auto alive = weak.lock()) alive->wake();
      });
    });
    const uint64_t client = ++serving_.last_client;
    auto [promise, reply] = peer_->make_reply<Ok>();
    // Its end detaches, whether it comes to be answered or not.
    schema::Lane::Client lane = kj::heap<LaneServer>(serving_, peer_, client, std::move(pump));
    serving_.handler.on_attach(client, lane_id, ResultSinkHandle(queue), std::move(reply));
    return promise.then([context, lane = kj::mv(lane)](Result<Ok> result) mutable {
      value_of(result);
      context.getResults().setLane(kj::mv(lane));
    });
  }

  kj::Promise<void> stats(StatsContext context) override {
    peer_->check(context);
    auto [promise, reply] = peer_->make_reply<RankStats>();
    serving_.handler.on_stats(std::move(reply));
    return promise.then([context](Result<RankStats> result) mutable {
      write(context.getResults().initStats(), value_of(result));
    });
  }

  kj::Promise<void> trace(TraceContext context) override {
    peer_->check(context);
    auto [promise, reply] = peer_->make_reply<StepEvents>();
    serving_.handler.on_trace(context.getParams().getSince(), std::move(reply));
    return promise.then([context](Result<StepEvents> result) mutable {
      write(context.getResults().initEvents(), value_of(result));
    });
  }

  kj::Promise<void> shutdown(ShutdownContext context) override {
    peer_->check(context);
    peer_->check_term();
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_shutdown(std::move(reply));
    return promise.then([this](Result<Ok> result) {
      value_of(result);
      serving_.stop->fulfill();
    });
  }

  kj::Promise<void> watch(WatchContext context) override {
    peer_->check(context);
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_watch(context.getParams().getOfLinks(), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> beat(BeatContext context) override {
    peer_->check(context);
    const BeatReply beat = serving_.handler.on_beat();
    auto results = context.getResults();
    results.setCount(beat.count);
    write_list(results.initLinks(num(beat.links)), beat.links);
    write(results.initSteps(), beat.steps);
    return kj::READY_NOW;
  }

  kj::Promise<void> fence(FenceContext context) override {
    peer_->check(context);
    peer_->check_term();
    auto [promise, reply] = peer_->make_reply<rpc::StageHoldings>();
    const auto params = context.getParams();
    serving_.handler.on_fence(params.getLaneId(), params.getEpoch(), std::move(reply));
    return promise.then([context](Result<rpc::StageHoldings> result) mutable {
      write(context.getResults().initHoldings(), value_of(result));
    });
  }

  kj::Promise<void> resume(ResumeContext context) override {
    peer_->check(context);
    peer_->check_term();
    const auto params = context.getParams();
    std::vector<rpc::StageHoldings> stages;
    read_list(params.getStages(), stages);
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_resume(params.getLaneId(), params.getEpoch(), std::move(stages),
                               std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> arm(ArmContext context) override {
    peer_->check(context);
    FaultOrder fault;
    read(context.getParams().getFault(), fault);
    if (const Status good = check_fault(fault); !good.ok()) return to_exception(good.error());
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_arm(fault, std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

  kj::Promise<void> takeIn(TakeInContext context) override {
    peer_->check(context);
    peer_->check_term();
    KvCopy copy;
    read(context.getParams().getCopy(), copy);
    auto [promise, reply] = peer_->make_reply<KvAddress>();
    serving_.handler.on_take_in(std::move(copy), std::move(reply));
    return promise.then([context](Result<KvAddress> result) mutable {
      const KvAddress& at = value_of(result);
      context.getResults().setAddress(text(at.address));
      context.getResults().setPort(at.port);
    });
  }

  kj::Promise<void> copy(CopyContext context) override {
    peer_->check(context);
    peer_->check_term();
    KvCopy copy;
    read(context.getParams().getCopy(), copy);
    auto [pump, report] = make_progress(context.getParams().getProgress());
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_copy(std::move(copy), report, std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); }).attach(kj::mv(pump));
  }

  kj::Promise<void> finishCopy(FinishCopyContext context) override {
    peer_->check(context);
    peer_->check_term();
    auto [promise, reply] = peer_->make_reply<Ok>();
    serving_.handler.on_finish_copy(std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }

 private:
  /// What tells `sink`, as long as the first lives.
  std::pair<std::shared_ptr<ProgressPump>, ProgressReport> make_progress(
      schema::ProgressSink::Client sink) const {
    auto state = std::make_shared<ProgressState>();
    auto pump = std::make_shared<ProgressPump>(kj::mv(sink), state);
    return {pump, [inbox = serving_.inbox, state, weak = std::weak_ptr(pump)](int64_t done,
                                                                              int64_t total) {
              {
                const std::lock_guard lock(state->mutex);
                state->done = done;
                state->total = total;
                if (std::exchange(state->posted, true)) return;
              }
              inbox->post([weak] {
                if (const auto alive = weak.lock()) alive->wake();
              });
            }};
  }

  RankServing& serving_;
  std::shared_ptr<Peer> peer_;
  std::set<uint8_t> attached_;  // lanes
};

}  // namespace

Status serve_rank(UniqueFd control, UniqueFd listener, RankHandler& handler,
                  const RankServerOptions& options) {
  RankServing serving(handler, options);
  return serve_control(
      serving, std::move(control), std::move(listener),
      [&serving](const std::optional<Identity>&) -> capnp::Capability::Client {
        return kj::heap<RankServer>(serving);
      },
      options.admission);
}

}  // namespace chainpump::transport::rpc
