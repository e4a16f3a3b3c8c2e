// `chainpump batch`: a file of requests in, a file of answers out, in OpenAI's batch format. Ended
// in any way and run again, it goes on where it was.
#pragma once

#include <string>

#include "cli/batch_answer.h"
#include "cli/deploy.h"

namespace chainpump::cli {

struct BatchOptions {
  DeployOptions deploy;
  std::string input;
  std::string output;
  BatchTerms terms;
};

/// The exit status: 0 once every line has its answer, be it an error of its own; else as in
/// exit_status.h; 128 + N after signal N.
int run_batch(const BatchOptions& options);

}  // namespace chainpump::cli
