// A deployment's record as JSON text, for stores of text. Any thread.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "graph/deployment_record.h"

namespace chainpump::actors {

/// `unix_minus_monotonic`: of this machine's clocks; the text has times that mean the same on all.
/// `term`: of whoever writes it, for people who look at it.
std::string to_json_text(const graph::DeploymentRecord& record, int64_t term,
                         Duration unix_minus_monotonic);
/// Ends that lie after `now`, by clocks that differ, are put there. bad_file.
Result<graph::DeploymentRecord> record_from_json(const std::string& text,
                                                 Duration unix_minus_monotonic, TimePoint now);

/// Of this machine, now.
Duration unix_minus_monotonic();

}  // namespace chainpump::actors
