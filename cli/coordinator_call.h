// A call to a service's coordinator that may take a while, for a command that waits for it: with
// progress on a terminal. One thread.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "transport/rpc/coordinator_client.h"

namespace chainpump::cli {

using CoordinatorCall = std::function<void(
    transport::rpc::CoordinatorClient& client, Duration deadline,
    transport::rpc::OnMoveProgress on_progress, transport::rpc::Callback<Ok> callback)>;

/// Of the service in this folder. not_found: there is none; else whatever the call ends with.
Status call_coordinator(const std::string& folder, const CoordinatorCall& call);

}  // namespace chainpump::cli
