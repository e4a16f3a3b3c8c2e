// What a stage actor is told, each with the way to answer. Messages between actors of one process;
// the payloads are the control protocol's (transport/rpc/control_types.h), whether they came over
// RPC or from a coordinator in the same process. Move-only: sent by shared_ptr, taken by one actor.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "actors/lane_clients.h"
#include "base/result.h"
#include "graph/plan.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/rank_server.h"

namespace chainpump::actors {

/// Where a stage's weights are on this machine.
struct ModelPlace {
  std::string path;
  int64_t fetched_bytes = 0;  // of which progress has been told before
};
/// Finds them for a stage, which may take as long as loading; progress is told meanwhile.
using FindModel =
    std::function<Result<ModelPlace>(const graph::StagePlan&, const rpc::ProgressReport&)>;

struct LoadCommand {
  rpc::LoadParams params;
  rpc::ProgressReport progress;
  rpc::Reply<rpc::LoadReport> reply;
  FindModel find_model = {};  // empty: they are where the plan says
};
struct ConnectCommand {
  rpc::ConnectParams params;
  rpc::Reply<Ok> reply;
};
struct AttachCommand {
  uint64_t client = 0;  // of one lane, never used again
  graph::LaneId lane;
  ResultSink sink;
  rpc::Reply<Ok> reply;
};
struct DetachCommand {
  uint64_t client = 0;
};
struct SubmitCommand {
  uint64_t client = 0;
  std::vector<rpc::GenerateRequest> requests;
  rpc::Reply<Ok> reply;
};
struct CancelCommand {
  uint64_t client = 0;
  std::vector<uint64_t> request_ids;
  rpc::Reply<Ok> reply;
};
struct StatsCommand {
  rpc::Reply<rpc::RankStats> reply;
};
struct ShutdownCommand {
  rpc::Reply<Ok> reply;
};
struct WatchCommand {
  bool of_links = false;
  rpc::Reply<Ok> reply;
};

struct FenceCommand {
  graph::LaneId lane;
  PlanEpoch epoch;
  rpc::Reply<rpc::StageHoldings> reply;
};
struct TakeInCommand {
  rpc::KvCopy copy;
  rpc::Reply<rpc::KvAddress> reply;
};
struct CopyCommand {
  rpc::KvCopy copy;
  rpc::ProgressReport progress;
  rpc::Reply<Ok> reply;
};
struct FinishCopyCommand {
  rpc::Reply<Ok> reply;
};
struct ArmCommand {
  transport::FaultOrder fault;
  rpc::Reply<Ok> reply;
};
struct ResumeCommand {
  graph::LaneId lane;
  PlanEpoch epoch;
  std::vector<rpc::StageHoldings> stages;
  rpc::Reply<Ok> reply;
};

}  // namespace chainpump::actors
