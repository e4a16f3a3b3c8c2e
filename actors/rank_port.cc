#include "actors/rank_port.h"

#include <unistd.h>

#include "actors/stage_actor.h"

namespace chainpump::actors {
namespace {

class RpcPort final : public RankPort {
 public:
  // A lost connection answers the calls under way; the death itself is told by the pidfd.
  RpcPort(rpc::RpcThread& thread, rpc::Channel channel)
      : client_(thread, std::move(channel), [](const Error&) {}) {}

  void hello(Duration deadline, rpc::Callback<rpc::HelloReply> callback) override {
    client_.hello(deadline, std::move(callback));
  }
  void load(rpc::LoadParams params, Duration deadline, rpc::ProgressCallback progress,
            rpc::Callback<rpc::LoadReport> callback) override {
    client_.load(std::move(params), deadline, std::move(progress), std::move(callback));
  }
  void connect(rpc::ConnectParams params, Duration deadline, rpc::Callback<Ok> callback) override {
    client_.connect(std::move(params), deadline, std::move(callback));
  }
  void attach(graph::LaneId lane, std::function<void(rpc::LaneResults)> on_results,
              Duration deadline, rpc::Callback<Ok> callback) override {
    client_.attach(lane.value, std::move(on_results), deadline, std::move(callback));
  }
  void submit(graph::LaneId lane, std::vector<rpc::GenerateRequest> requests, Duration deadline,
              rpc::Callback<Ok> callback) override {
    client_.submit(lane.value, std::move(requests), deadline, std::move(callback));
  }
  void cancel(graph::LaneId lane, std::vector<uint64_t> request_ids, Duration deadline,
              rpc::Callback<Ok> callback) override {
    client_.cancel(lane.value, std::move(request_ids), deadline, std::move(callback));
  }
  void stats(Duration deadline, rpc::Callback<rpc::RankStats> callback) override {
    client_.stats(deadline, std::move(callback));
  }
  void trace(uint64_t since, Duration deadline, rpc::Callback<StepEvents> callback) override {
    client_.trace(since, deadline, std::move(callback));
  }
  void shutdown(Duration deadline, rpc::Callback<Ok> callback) override {
    client_.shutdown(deadline, std::move(callback));
  }
  void watch(bool of_links, rpc::Callback<Ok> callback) override {
    client_.watch(of_links, std::move(callback));
  }
  void beat(Duration deadline, rpc::Callback<rpc::BeatReply> callback) override {
    client_.beat(deadline, std::move(callback));
  }
  void fence(graph::LaneId lane, PlanEpoch epoch, Duration deadline,
             rpc::Callback<rpc::StageHoldings> callback) override {
    client_.fence(lane.value, epoch.value, deadline, std::move(callback));
  }
  void resume(graph::LaneId lane, PlanEpoch epoch, std::vector<rpc::StageHoldings> stages,
              Duration deadline, rpc::Callback<Ok> callback) override {
    client_.resume(lane.value, epoch.value, std::move(stages), deadline, std::move(callback));
  }
  void take_in(rpc::KvCopy copy, Duration deadline,
               rpc::Callback<rpc::KvAddress> callback) override {
    client_.take_in(std::move(copy), deadline, std::move(callback));
  }
  void copy(rpc::KvCopy copy, Duration deadline, rpc::ProgressCallback progress,
            rpc::Callback<Ok> callback) override {
    client_.copy(std::move(copy), deadline, std::move(progress), std::move(callback));
  }
  void finish_copy(Duration deadline, rpc::Callback<Ok> callback) override {
    client_.finish_copy(deadline, std::move(callback));
  }

 private:
  rpc::RankClient client_;
};

class LocalPort final : public RankPort {
 public:
  explicit LocalPort(StageHandle stage) : stage_(std::move(stage)) {}

  void hello(Duration, rpc::Callback<rpc::HelloReply> callback) override {
    callback(rpc::HelloReply{
        .protocol_version = rpc::kProtocolVersion, .build = rpc::build_name(), .pid = getpid()});
  }
  void load(rpc::LoadParams params, Duration, rpc::ProgressCallback progress,
            rpc::Callback<rpc::LoadReport> callback) override {
    stage_.tell(LoadCommand{.params = std::move(params),
                            .progress = std::move(progress),
                            .reply = rpc::Reply<rpc::LoadReport>(std::move(callback))});
  }
  void connect(rpc::ConnectParams params, Duration, rpc::Callback<Ok> callback) override {
    stage_.tell(
        ConnectCommand{.params = std::move(params), .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void attach(graph::LaneId lane, std::function<void(rpc::LaneResults)> on_results, Duration,
              rpc::Callback<Ok> callback) override {
    stage_.tell(AttachCommand{.client = client_of(lane),
                              .lane = lane,
                              .sink =
                                  [on_results = std::move(on_results)](rpc::LaneResults results) {
                                    on_results(std::move(results));
                                    return ok_status();
                                  },
                              .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void submit(graph::LaneId lane, std::vector<rpc::GenerateRequest> requests, Duration,
              rpc::Callback<Ok> callback) override {
    stage_.tell(SubmitCommand{.client = client_of(lane),
                              .requests = std::move(requests),
                              .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void cancel(graph::LaneId lane, std::vector<uint64_t> request_ids, Duration,
              rpc::Callback<Ok> callback) override {
    stage_.tell(CancelCommand{.client = client_of(lane),
                              .request_ids = std::move(request_ids),
                              .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void stats(Duration, rpc::Callback<rpc::RankStats> callback) override {
    stage_.tell(StatsCommand{.reply = rpc::Reply<rpc::RankStats>(std::move(callback))});
  }
  void trace(uint64_t since, Duration, rpc::Callback<StepEvents> callback) override {
    callback(stage_.trace().read(since));
  }
  void shutdown(Duration, rpc::Callback<Ok> callback) override {
    stage_.tell(ShutdownCommand{.reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void watch(bool of_links, rpc::Callback<Ok> callback) override {
    stage_.tell(WatchCommand{.of_links = of_links, .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void beat(Duration, rpc::Callback<rpc::BeatReply> callback) override {
    callback(rpc::BeatReply{.count = stage_.beat().count()});
  }
  void fence(graph::LaneId lane, PlanEpoch epoch, Duration,
             rpc::Callback<rpc::StageHoldings> callback) override {
    stage_.tell(FenceCommand{.lane = lane,
                             .epoch = epoch,
                             .reply = rpc::Reply<rpc::StageHoldings>(std::move(callback))});
  }
  void resume(graph::LaneId lane, PlanEpoch epoch, std::vector<rpc::StageHoldings> stages, Duration,
              rpc::Callback<Ok> callback) override {
    stage_.tell(ResumeCommand{.lane = lane,
                              .epoch = epoch,
                              .stages = std::move(stages),
                              .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void take_in(rpc::KvCopy copy, Duration, rpc::Callback<rpc::KvAddress> callback) override {
    stage_.tell(TakeInCommand{.copy = std::move(copy),
                              .reply = rpc::Reply<rpc::KvAddress>(std::move(callback))});
  }
  void copy(rpc::KvCopy copy, Duration, rpc::ProgressCallback progress,
            rpc::Callback<Ok> callback) override {
    stage_.tell(CopyCommand{.copy = std::move(copy),
                            .progress = std::move(progress),
                            .reply = rpc::Reply<Ok>(std::move(callback))});
  }
  void finish_copy(Duration, rpc::Callback<Ok> callback) override {
    stage_.tell(FinishCopyCommand{.reply = rpc::Reply<Ok>(std::move(callback))});
  }

 private:
  /// A stage in this process has no others.
  static uint64_t client_of(graph::LaneId lane) { return uint64_t{lane.value} + 1; }
  StageHandle stage_;
};

}  // namespace

std::shared_ptr<RankPort> make_rpc_port(rpc::RpcThread& thread, rpc::Channel channel) {
  return std::make_shared<RpcPort>(thread, std::move(channel));
}

std::shared_ptr<RankPort> make_local_port(StageHandle stage) {
  return std::make_shared<LocalPort>(std::move(stage));
}

}  // namespace chainpump::actors
