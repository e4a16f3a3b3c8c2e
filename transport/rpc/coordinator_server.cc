#include "transport/rpc/coordinator_server.h"

#include <map>
#include <optional>
#include <set>

#include "transport/rpc/convert.h"
#include "transport/rpc/serving.h"

namespace chainpump::transport::rpc {
namespace {

struct Progress {
  int64_t done = 0;
  int64_t total = 0;
};

/// What all watchers are told.
struct News {
  std::map<uint32_t, Progress> progress;  // by rank
  std::string numerics_id;
  std::vector<LaneAddress> lanes;
  uint64_t num_servings = 0;  // how often the lanes were set: what was told says which
  std::vector<LaneNews> lane_news;
  uint64_t num_lane_news = 0;  // likewise
  std::optional<Error> failed;
};

class DeploymentWatch;

struct State {
  explicit State(CoordinatorHandler& given) : handler(given), serving("") {}
  CoordinatorHandler& handler;
  Serving serving;
  // The loop's thread only:
  News news;
  std::set<DeploymentWatch*> watches;
  std::vector<Reply<Ok>> stopping;
};

/// One peer that watches; lives as its call does. One message is under way at a time.
class DeploymentWatch {
 public:
  DeploymentWatch(schema::DeploymentSink::Client sink, State& state)
      : sink_(kj::mv(sink)), state_(state) {
    state_.watches.insert(this);
    wake();
  }
  ~DeploymentWatch() { state_.watches.erase(this); }
  KJ_DISALLOW_COPY(DeploymentWatch);

  void wake() {
    if (running_) return;
    running_ = true;
    task_ = drain().eagerlyEvaluate([](kj::Exception&&) {});  // it has gone: so will its call
  }

 private:
  kj::Promise<void> drain() {
    const News& news = state_.news;
    if (news.failed && !std::exchange(told_failed_, true)) {
      auto request = sink_.endedRequest();
      request.setCode(static_cast<schema::ErrorCode>(news.failed->code));
      request.setMessage(news.failed->message.c_str());
      return request.send().ignoreResult();  // and is not woken any more
    }
    for (const auto& [rank, progress] : news.progress) {
      if (told_[rank] == progress.done) continue;
      told_[rank] = progress.done;
      auto request = sink_.progressedRequest();
      request.setRank(rank);
      request.setBytesDone(progress.done);
      request.setBytesTotal(progress.total);
      return request.send().then([this] { return drain(); });
    }
    if (std::exchange(told_servings_, news.num_servings) != news.num_servings) {
      auto request = sink_.servingRequest();
      request.setNumericsId(news.numerics_id.c_str());
      write_list(request.initLanes(num(news.lanes)), news.lanes);
      return request.send().then([this](auto&&) { return drain(); });
    }
    if (std::exchange(told_lane_news_, news.num_lane_news) != news.num_lane_news) {
      auto request = sink_.lanesRequest();
      write_list(request.initLanes(num(news.lane_news)), news.lane_news);
      return request.send().then([this](auto&&) { return drain(); });
    }
    running_ = false;
    return kj::READY_NOW;
  }

  schema::DeploymentSink::Client sink_;
  State& state_;
  std::map<uint32_t, int64_t> told_;
  uint64_t told_servings_ = 0;
  uint64_t told_lane_news_ = 0;
  bool told_failed_ = false;
  bool running_ = false;
  kj::Promise<void> task_ = kj::READY_NOW;
};

/// Tells of one move; the latest counts. Lives as its call does.
class MovePump {
 public:
  explicit MovePump(schema::MoveSink::Client sink) : sink_(kj::mv(sink)) {}
  KJ_DISALLOW_COPY(MovePump);
  void tell(const MoveProgress& progress) {
    next_ = progress;
    if (!std::exchange(running_, true))
      task_ = drain().eagerlyEvaluate([](kj::Exception&&) {});  // nobody listens any more
  }

 private:
  kj::Promise<void> drain() {
    if (!next_) {
      running_ = false;
      return kj::READY_NOW;
    }
    auto request = sink_.progressedRequest();
    write(request.initProgress(), *std::exchange(next_, std::nullopt));
    return request.send().then([this] { return drain(); });
  }

  schema::MoveSink::Client sink_;
  std::optional<MoveProgress> next_;
  bool running_ = false;
  kj::Promise<void> task_ = kj::READY_NOW;
};

class CoordinatorApi final : public schema::Coordinator::Server {
 public:
  explicit CoordinatorApi(State& state) : state_(state), peer_(state.serving) {}

  kj::Promise<void> hello(HelloContext context) override {
    peer_.greet(context);
    return kj::READY_NOW;
  }
  kj::Promise<void> watch(WatchContext context) override {
    peer_.check(context);
    return kj::Promise<void>(kj::NEVER_DONE)
        .attach(kj::heap<DeploymentWatch>(context.getParams().getSink(), state_),
                peer_.open_call());
  }
  kj::Promise<void> stats(StatsContext context) override {
    peer_.check(context);
    auto [promise, reply] = peer_.make_reply<std::vector<RankStats>>();
    state_.handler.on_stats(std::move(reply));
    return promise.then([context](Result<std::vector<RankStats>> result) mutable {
      const std::vector<RankStats>& stats = value_of(result);
      write_list(context.getResults().initStats(static_cast<uint32_t>(stats.size())), stats);
    });
  }
  kj::Promise<void> stop(StopContext context) override {
    peer_.check(context);
    auto [promise, reply] = peer_.make_reply<Ok>();
    state_.stopping.push_back(std::move(reply));
    state_.handler.on_stop();
    return promise.then([](Result<Ok> result) { value_of(result); });
  }
  kj::Promise<void> trace(TraceContext context) override {
    peer_.check(context);
    auto [answer, reply] = peer_.make_reply<StepEvents>();
    const auto params = context.getParams();
    state_.handler.on_trace(params.getRank(), params.getSince(), std::move(reply));
    return answer.then([context](Result<StepEvents> result) mutable {
      write(context.getResults().initEvents(), value_of(result));
    });
  }
  kj::Promise<void> beat(BeatContext context) override {
    peer_.check(context);
    auto [promise, reply] = peer_.make_reply<Ok>();
    state_.handler.on_beat(std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); });
  }
  kj::Promise<void> move(MoveContext context) override {
    peer_.check(context);
    auto [pump, progress] = make_progress(context.getParams().getSink());
    auto [promise, reply] = peer_.make_reply<Ok>();
    state_.handler.on_move(context.getParams().getRank(), std::move(progress), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); }).attach(kj::mv(pump));
  }
  kj::Promise<void> change(ChangeContext context) override {
    peer_.check(context);
    ServiceSpec spec;
    read(context.getParams().getSpec(), spec);
    auto [pump, progress] = make_progress(context.getParams().getSink());
    auto [promise, reply] = peer_.make_reply<Ok>();
    state_.handler.on_change(std::move(spec), std::move(progress), std::move(reply));
    return promise.then([](Result<Ok> result) { value_of(result); }).attach(kj::mv(pump));
  }

 private:
  std::pair<std::shared_ptr<MovePump>, OnMoveProgress> make_progress(
      schema::MoveSink::Client sink) const {
    auto pump = std::make_shared<MovePump>(kj::mv(sink));
    return {pump,
            [inbox = state_.serving.inbox, weak = std::weak_ptr(pump)](const MoveProgress& now) {
              inbox->post([weak, now] {
                if (const auto alive = weak.lock()) alive->tell(now);
              });
            }};
  }

  State& state_;
  Peer peer_;
};

}  // namespace

struct CoordinatorServer::Impl : State {
  using State::State;

  template <typename Change>
  void update(Change change) {
    serving.inbox->post([this, change = std::move(change)] {
      change(news);
      for (DeploymentWatch* watch : watches) watch->wake();
    });
  }
};

CoordinatorServer::CoordinatorServer(CoordinatorHandler& handler)
    : impl_(std::make_unique<Impl>(handler)) {}
CoordinatorServer::~CoordinatorServer() = default;

Status CoordinatorServer::run(UniqueFd listener) {
  return serve_control(impl_->serving, UniqueFd(), std::move(listener),
                       [this](const std::optional<Identity>&) -> capnp::Capability::Client {
                         return kj::heap<CoordinatorApi>(*impl_);
                       });
}

void CoordinatorServer::set_progress(uint32_t rank, int64_t bytes_done, int64_t bytes_total) {
  impl_->update([=](News& news) { news.progress[rank] = {bytes_done, bytes_total}; });
}

void CoordinatorServer::set_serving(std::string numerics_id, std::vector<LaneAddress> lanes) {
  impl_->update([numerics_id = std::move(numerics_id), lanes = std::move(lanes)](News& news) {
    news.numerics_id = numerics_id;
    news.lanes = lanes;
    ++news.num_servings;
  });
}

void CoordinatorServer::set_lanes(std::vector<LaneNews> lanes) {
  impl_->update([lanes = std::move(lanes)](News& news) {
    news.lane_news = lanes;
    ++news.num_lane_news;
  });
}

void CoordinatorServer::set_failed(Error why) {
  impl_->update([why = std::move(why)](News& news) {
    if (!news.failed) news.failed = why;
  });
}

void CoordinatorServer::set_stopped() {
  set_failed(make_error(ErrorCode::cancelled, "the deployment was stopped"));
  impl_->serving.inbox->post([impl = impl_.get()] {
    for (Reply<Ok>& reply : impl->stopping) reply(Ok{});
    impl->stopping.clear();
    // After the answers, which come by the inbox too.
    impl->serving.inbox->post([impl] { impl->serving.stop->fulfill(); });
  });
}

}  // namespace chainpump::transport::rpc
