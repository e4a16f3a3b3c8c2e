// Between the gateway's plain structs (gateway/types.h) and the public interface's
// (schemas/chainpump.capnp). Includes the RPC library's headers: for gateway/rpc/*.cc only. read()
// throws the library's exception on a malformed message or a value of an enum that it does not
// know; the caller stands inside the library's own catch.
#pragma once

#include "gateway/types.h"
#include "schemas/chainpump.capnp.h"
#include "transport/rpc/fields.h"

namespace chainpump::gateway::rpc {

namespace api = schema::api;

using transport::rpc::checked;
using transport::rpc::checked_list;
using transport::rpc::num;
using transport::rpc::read_bytes;
using transport::rpc::read_ints;
using transport::rpc::text;
using transport::rpc::write_bytes;
using transport::rpc::write_ints;

void write(api::Prompt::Builder out, const Prompt& in);
Prompt read(api::Prompt::Reader in);
void write(api::GenerateRequest::Builder out, const GenerateRequest& in);
GenerateRequest read(api::GenerateRequest::Reader in);
void write(api::ScoreRequest::Builder out, const ScoreRequest& in);
ScoreRequest read(api::ScoreRequest::Reader in);
void write(api::Delta::Builder out, const Delta& in);
Delta read(api::Delta::Reader in);
void write(api::Outcome::Builder out, const Result<Usage>& in);
Result<Usage> read(api::Outcome::Reader in);
void write(api::Deployment::Builder out, const DeploymentInfo& in);
DeploymentInfo read(api::Deployment::Reader in);
void write(api::Status::Builder out, const StatusReport& in);
StatusReport read(api::Status::Reader in);
void write(api::Readiness::Builder out, const Readiness& in);
Readiness read(api::Readiness::Reader in);
void write(api::Event::Builder out, const Event& in);
Event read(api::Event::Reader in);

}  // namespace chainpump::gateway::rpc
