// What `chainpump top` shows of a service between two looks at it. Pure; any thread.
#pragma once

#include <string>

#include "gateway/types.h"

namespace chainpump::cli {

/// Where a stage's time went, as shares of all of it: they add up to 1.
struct StageShares {
  double busy = 0;
  double transfer = 0;
  double wait_input = 0;
  double wait_credit = 0;
  double idle = 1;  // it knew of no request
};

/// Between two reports of one stage; all idle if nothing has passed, or if it has started anew.
StageShares shares_between(const actors::StageReport& before, const actors::StageReport& now);

/// So many characters, shared out: '#' busy, '>' transfer, '.' waiting for input, '!' for credit,
/// blanks idle.
std::string shares_bar(const StageShares& shares, int width);

/// Queues and blocks of all lanes together.
actors::LaneReport sum_of(const std::vector<actors::LaneReport>& lanes);

/// The whole picture, lines of at most about 110 characters. `between`: the time between the looks.
std::string top_view(const gateway::DeploymentInfo& deployment, const gateway::StatusReport& before,
                     const gateway::StatusReport& now, Duration between);

}  // namespace chainpump::cli
