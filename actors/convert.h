// Between what control calls carry (transport/rpc/control_types.h) and the graph's own types.
// Everything that comes from a peer is checked here or by whoever uses it. Pure; any thread.
#pragma once

#include <vector>

#include "base/result.h"
#include "graph/health.h"
#include "graph/lane_fill.h"
#include "graph/microbatch.h"
#include "graph/plan.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

transport::rpc::ModelIdentity to_wire(const graph::ModelIdentity& model);
graph::ModelIdentity from_wire(const transport::rpc::ModelIdentity& model);
transport::rpc::Plan to_wire(const graph::Plan& plan);
/// invalid_argument naming what makes no sense: sizes, indices, types by name.
Result<graph::Plan> from_wire(const transport::rpc::Plan& plan);

transport::rpc::SamplingParams to_wire(const graph::SamplingParams& params);
graph::SamplingParams from_wire(const transport::rpc::SamplingParams& params);

transport::rpc::StageHoldings to_wire(const graph::StageHoldings& holdings);
/// Of a stage of this plan. invalid_argument: lists of unequal lengths, counts below 0.
Result<graph::StageHoldings> from_wire(const transport::rpc::StageHoldings& holdings,
                                       const graph::Plan& plan);

std::vector<transport::rpc::LaneNews> to_wire(const std::vector<graph::LaneNews>& news);
std::vector<graph::LaneNews> from_wire(const std::vector<transport::rpc::LaneNews>& news);

transport::rpc::TokenResult to_wire(const graph::TokenResult& result);
transport::rpc::ScoreResult to_wire(const graph::ScoreResult& result);
graph::TokenResult from_wire(const transport::rpc::TokenResult& result);
graph::ScoreResult from_wire(const transport::rpc::ScoreResult& result);

}  // namespace chainpump::actors
