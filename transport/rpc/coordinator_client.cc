#include "transport/rpc/coordinator_client.h"

#include "transport/rpc/connection.h"
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {
namespace {

using Api = schema::Coordinator;

class DeploymentServer final : public schema::DeploymentSink::Server {
 public:
  explicit DeploymentServer(DeploymentCallbacks callbacks) : callbacks_(std::move(callbacks)) {}
  kj::Promise<void> progressed(ProgressedContext context) override {
    const auto in = context.getParams();
    if (callbacks_.on_progress)
      callbacks_.on_progress(in.getRank(), in.getBytesDone(), in.getBytesTotal());
    return kj::READY_NOW;
  }
  kj::Promise<void> serving(ServingContext context) override {
    const auto in = context.getParams();
    std::vector<LaneAddress> lanes;
    read_list(in.getLanes(), lanes);
    if (callbacks_.on_serving) callbacks_.on_serving(in.getNumericsId(), std::move(lanes));
    return kj::READY_NOW;
  }
  kj::Promise<void> lanes(LanesContext context) override {
    std::vector<LaneNews> lanes;
    read_list(context.getParams().getLanes(), lanes);
    if (callbacks_.on_lanes) callbacks_.on_lanes(std::move(lanes));
    return kj::READY_NOW;
  }
  kj::Promise<void> ended(EndedContext context) override {
    const auto in = context.getParams();
    if (callbacks_.on_ended) callbacks_.on_ended(read_error(in.getCode(), in.getMessage()));
    return kj::READY_NOW;
  }

 private:
  DeploymentCallbacks callbacks_;
};

class MoveServer final : public schema::MoveSink::Server {
 public:
  explicit MoveServer(OnMoveProgress on_progress) : on_progress_(std::move(on_progress)) {}
  kj::Promise<void> progressed(ProgressedContext context) override {
    MoveProgress progress;
    read(context.getParams().getProgress(), progress);
    on_progress_(progress);
    return kj::READY_NOW;
  }

 private:
  OnMoveProgress on_progress_;
};

}  // namespace

CoordinatorClient::CoordinatorClient(RpcThread& thread, Channel channel,
                                     std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(channel), "the coordinator", std::move(on_disconnect))) {}

CoordinatorClient::~CoordinatorClient() { thread_->drop(connection_); }

void CoordinatorClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply, Api>(connection_, "hello", deadline, std::move(callback),
                                 say_hello<Api>);
}

void CoordinatorClient::watch(DeploymentCallbacks callbacks, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "watch", Duration::max(), std::move(callback),
                         [callbacks = std::move(callbacks)](Api::Client& coordinator) {
                           auto request = coordinator.watchRequest();
                           request.setSink(kj::heap<DeploymentServer>(callbacks));
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

void CoordinatorClient::stats(Duration deadline, Callback<std::vector<RankStats>> callback) {
  thread_->call<std::vector<RankStats>, Api>(
      connection_, "stats", deadline, std::move(callback), [](Api::Client& coordinator) {
        return coordinator.statsRequest().send().then([](auto&& response) {
          std::vector<RankStats> stats;
          read_list(response.getStats(), stats);
          return stats;
        });
      });
}

void CoordinatorClient::trace(uint32_t rank, uint64_t since, Duration deadline,
                              Callback<StepEvents> callback) {
  thread_->call<StepEvents, Api>(connection_, "trace", deadline, std::move(callback),
                                 [rank, since](Api::Client& coordinator) {
                                   auto request = coordinator.traceRequest();
                                   request.setRank(rank);
                                   request.setSince(since);
                                   return request.send().then([](auto&& response) {
                                     StepEvents events;
                                     read(response.getEvents(), events);
                                     return events;
                                   });
                                 });
}

void CoordinatorClient::stop(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(
      connection_, "stop", deadline, std::move(callback), [](Api::Client& coordinator) {
        return coordinator.stopRequest().send().then([](auto&&) { return Ok{}; });
      });
}

void CoordinatorClient::beat(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(
      connection_, "beat", deadline, std::move(callback), [](Api::Client& coordinator) {
        return coordinator.beatRequest().send().then([](auto&&) { return Ok{}; });
      });
}

void CoordinatorClient::move(uint32_t rank, Duration deadline, OnMoveProgress on_progress,
                             Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "move", deadline, std::move(callback),
                         [rank, on_progress = std::move(on_progress)](Api::Client& coordinator) {
                           auto request = coordinator.moveRequest();
                           request.setRank(rank);
                           request.setSink(kj::heap<MoveServer>(on_progress));
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

void CoordinatorClient::change(ServiceSpec spec, Duration deadline, OnMoveProgress on_progress,
                               Callback<Ok> callback) {
  thread_->call<Ok, Api>(
      connection_, "change", deadline, std::move(callback),
      [spec = std::move(spec), on_progress = std::move(on_progress)](Api::Client& coordinator) {
        auto request = coordinator.changeRequest();
        write(request.initSpec(), spec);
        request.setSink(kj::heap<MoveServer>(on_progress));
        return request.send().then([](auto&&) { return Ok{}; });
      });
}

}  // namespace chainpump::transport::rpc
