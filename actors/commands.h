// What a stage actor is told, each with the way to answer. Messages between actors of one process;
// the payloads are the control protocol's (transport/rpc/control_types.h), whether they came over
// RPC or from a coordinator in the same process. Move-only: sent by shared_ptr, taken by one actor.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/rank_server.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

/// Where a sequence's results go. Called in the stage's thread; must not block. An error
/// (overloaded, disconnected) ends the request.
struct ResultSink {
  std::function<Status(std::vector<rpc::TokenResult>)> tokens;
  std::function<Status(std::vector<rpc::ScoreResult>)> scores;
};

struct LoadCommand {
  rpc::LoadParams params;
  rpc::ProgressReport progress;
  rpc::Reply<rpc::LoadReport> reply;
};
struct ConnectCommand {
  rpc::ConnectParams params;
  rpc::Reply<Ok> reply;
};
struct SubmitCommand {
  rpc::GenerateRequest request;
  ResultSink sink;
  rpc::Reply<Ok> reply;
};
struct CancelCommand {
  uint64_t request_id = 0;
  rpc::Reply<Ok> reply;
};
struct StatsCommand {
  rpc::Reply<rpc::RankStats> reply;
};
struct ShutdownCommand {
  rpc::Reply<Ok> reply;
};
struct WatchCommand {
  rpc::Reply<Ok> reply;
};

}  // namespace chainpump::actors
