// How a coordinator talks to one rank, wherever it lives: over RPC to a process of its own, or
// straight to a stage actor in this process. Any thread; callbacks come once, on a thread of the
// port's, and must be short.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "graph/plan.h"
#include "transport/rpc/rank_client.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;
class StageHandle;

class RankPort {
 public:
  virtual ~RankPort() = default;
  virtual void hello(Duration deadline, rpc::Callback<rpc::HelloReply> callback) = 0;
  virtual void load(rpc::LoadParams params, Duration deadline, rpc::ProgressCallback progress,
                    rpc::Callback<rpc::LoadReport> callback) = 0;
  virtual void connect(rpc::ConnectParams params, Duration deadline,
                       rpc::Callback<Ok> callback) = 0;
  /// The rank may serve several lanes: these say of which a client is, or becomes one.
  virtual void attach(graph::LaneId lane, std::function<void(rpc::LaneResults)> on_results,
                      Duration deadline, rpc::Callback<Ok> callback) = 0;
  virtual void submit(graph::LaneId lane, std::vector<rpc::GenerateRequest> requests,
                      Duration deadline, rpc::Callback<Ok> callback) = 0;
  virtual void cancel(graph::LaneId lane, std::vector<uint64_t> request_ids, Duration deadline,
                      rpc::Callback<Ok> callback) = 0;
  virtual void stats(Duration deadline, rpc::Callback<rpc::RankStats> callback) = 0;
  virtual void trace(uint64_t since, Duration deadline, rpc::Callback<StepEvents> callback) = 0;
  virtual void shutdown(Duration deadline, rpc::Callback<Ok> callback) = 0;
  virtual void watch(bool of_links, rpc::Callback<Ok> callback) = 0;
  virtual void beat(Duration deadline, rpc::Callback<rpc::BeatReply> callback) = 0;
  virtual void fence(graph::LaneId lane, PlanEpoch epoch, Duration deadline,
                     rpc::Callback<rpc::StageHoldings> callback) = 0;
  virtual void resume(graph::LaneId lane, PlanEpoch epoch, std::vector<rpc::StageHoldings> stages,
                      Duration deadline, rpc::Callback<Ok> callback) = 0;
  // Of a move (schemas/move.capnp).
  virtual void take_in(rpc::KvCopy copy, Duration deadline,
                       rpc::Callback<rpc::KvAddress> callback) = 0;
  virtual void copy(rpc::KvCopy copy, Duration deadline, rpc::ProgressCallback progress,
                    rpc::Callback<Ok> callback) = 0;
  virtual void finish_copy(Duration deadline, rpc::Callback<Ok> callback) = 0;
};

std::shared_ptr<RankPort> make_rpc_port(rpc::RpcThread& thread, rpc::Channel channel);

/// A stage in this process cannot be lost without the caller, so deadlines are the caller's here.
std::shared_ptr<RankPort> make_local_port(StageHandle stage);

}  // namespace chainpump::actors
