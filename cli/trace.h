// `chainpump trace`: what every stage of a service did for a while, as a file for Perfetto. One
// thread.
#pragma once

#include <string>

namespace chainpump::cli {

struct TraceOptions {
  std::string name;             // a service's; empty: the only one that runs
  std::string duration = "5s";  // "5s", "500ms"; at most five minutes
  std::string output = "chainpump-trace.json";
};

/// The exit status: 0; 2 if that is no duration, 3 if there is no such service, else as in
/// exit_status.h.
int run_trace(const TraceOptions& options);

}  // namespace chainpump::cli
