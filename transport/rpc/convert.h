// Between the plain structs (control_types.h) and the schema's. Includes the RPC library's headers:
// for transport/rpc/*.cc only. read() throws the library's exception on a malformed message or an
// enum value of another version; the caller stands inside the library's own catch.
#pragma once

#include <vector>

#include "schemas/cluster.capnp.h"
#include "schemas/control.capnp.h"
#include "schemas/weights.capnp.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/fields.h"
#include "transport/rpc/move_types.h"

namespace chainpump::transport::rpc {

static_assert(kProtocolVersion == schema::PROTOCOL_VERSION);

void write(schema::LaneState::Builder out, const LaneState& in);
void read(schema::LaneState::Reader in, LaneState& out);
void write(schema::AgentProcess::Builder out, const AgentProcess& in);
void read(schema::AgentProcess::Reader in, AgentProcess& out);
void write(schema::LoadReport::Builder out, const LoadReport& in);
void read(schema::LoadReport::Reader in, LoadReport& out);
void write(schema::KvPlan::Builder out, const KvPlan& in);
void read(schema::KvPlan::Reader in, KvPlan& out);
void write(schema::DevicePlan::Builder out, const DevicePlan& in);
void read(schema::DevicePlan::Reader in, DevicePlan& out);
void write(schema::StagePlan::Builder out, const StagePlan& in);
void read(schema::StagePlan::Reader in, StagePlan& out);
void write(schema::EdgePlan::Builder out, const EdgePlan& in);
void read(schema::EdgePlan::Reader in, EdgePlan& out);
void write(schema::NodePlan::Builder out, const NodePlan& in);
void read(schema::NodePlan::Reader in, NodePlan& out);
void write(schema::ModelIdentity::Builder out, const ModelIdentity& in);
void read(schema::ModelIdentity::Reader in, ModelIdentity& out);
void write(schema::WeightSource::Builder out, const WeightSource& in);
void read(schema::WeightSource::Reader in, WeightSource& out);
void write(schema::Plan::Builder out, const Plan& in);
void read(schema::Plan::Reader in, Plan& out);
void write(schema::LoadParams::Builder out, const LoadParams& in);
void read(schema::LoadParams::Reader in, LoadParams& out);
void write(schema::NodeInfo::Builder out, const NodeInfo& in);
void read(schema::NodeInfo::Reader in, NodeInfo& out);
void write(schema::ServiceSpec::Builder out, const ServiceSpec& in);
void read(schema::ServiceSpec::Reader in, ServiceSpec& out);
void write(schema::LinkTarget::Builder out, const LinkTarget& in);
void read(schema::LinkTarget::Reader in, LinkTarget& out);
void write(schema::LinkAccept::Builder out, const LinkAccept& in);
void read(schema::LinkAccept::Reader in, LinkAccept& out);
void write(schema::KvCopy::Builder out, const KvCopy& in);
void read(schema::KvCopy::Reader in, KvCopy& out);
void write(schema::MoveProgress::Builder out, const MoveProgress& in);
void read(schema::MoveProgress::Reader in, MoveProgress& out);
void write(schema::LaneAddress::Builder out, const LaneAddress& in);
void read(schema::LaneAddress::Reader in, LaneAddress& out);
void write(schema::LaneNews::Builder out, const LaneNews& in);
void read(schema::LaneNews::Reader in, LaneNews& out);
void write(schema::StageHoldings::Builder out, const StageHoldings& in);
void read(schema::StageHoldings::Reader in, StageHoldings& out);
void write(schema::SamplingParams::Builder out, const SamplingParams& in);
void read(schema::SamplingParams::Reader in, SamplingParams& out);
void write(schema::ScoreParams::Builder out, const ScoreParams& in);
void read(schema::ScoreParams::Reader in, ScoreParams& out);
void write(schema::GenerateRequest::Builder out, const GenerateRequest& in);
void read(schema::GenerateRequest::Reader in, GenerateRequest& out);
void write(schema::TokenResult::Builder out, const TokenResult& in);
void read(schema::TokenResult::Reader in, TokenResult& out);
void write(schema::ScoreResult::Builder out, const ScoreResult& in);
void read(schema::ScoreResult::Reader in, ScoreResult& out);
/// An error as the schema has it; not none.
Error read_error(schema::ErrorCode code, std::string message);
void write(schema::RequestEnd::Builder out, const RequestEnd& in);
void read(schema::RequestEnd::Reader in, RequestEnd& out);
void write(schema::LinkBeat::Builder out, const LinkBeat& in);
void read(schema::LinkBeat::Reader in, LinkBeat& out);
void write(schema::StepTotals::Builder out, const StepTotals& in);
void read(schema::StepTotals::Reader in, StepTotals& out);
void write(schema::Fault::Builder out, const FaultOrder& in);
void read(schema::Fault::Reader in, FaultOrder& out);
void write(schema::LaneStats::Builder out, const LaneStats& in);
void read(schema::LaneStats::Reader in, LaneStats& out);
void write(schema::StageReport::Builder out, const StageReport& in);
void read(schema::StageReport::Reader in, StageReport& out);
void write(schema::LinkReport::Builder out, const LinkReport& in);
void read(schema::LinkReport::Reader in, LinkReport& out);
void write(schema::RankStats::Builder out, const RankStats& in);
void read(schema::RankStats::Reader in, RankStats& out);

inline void write(schema::StepEvents::Builder out, const StepEvents& in) { write_steps(out, in); }
inline void read(schema::StepEvents::Reader in, StepEvents& out) { out = read_steps(in); }

template <typename ListBuilder, typename T>
void write_list(ListBuilder out, const std::vector<T>& in) {
  for (uint32_t i = 0; i < out.size(); ++i) write(out[i], in[i]);
}
template <typename ListReader, typename T>
void read_list(ListReader in, std::vector<T>& out) {
  out.resize(checked_list(in).size());
  for (uint32_t i = 0; i < in.size(); ++i) read(in[i], out[i]);
}

}  // namespace chainpump::transport::rpc
