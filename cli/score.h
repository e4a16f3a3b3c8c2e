// `chainpump score`: teacher-forced log-probabilities. JSON lines in, {"prompt_ids": [...],
// "target_ids": [...]}; JSON lines out, {"logprobs": [...], "argmax_ids": [...]}, in the same
// order: logprobs[i] is that of target_ids[i] after the prompt and the targets before it. One
// thread.
#pragma once

#include <istream>
#include <ostream>
#include <string>

#include "cli/deploy.h"

namespace chainpump::cli {

struct ScoreOptions {
  DeployOptions deploy;
  std::string full;  // .npy file for all log-probabilities [positions, vocabulary], or empty
};

/// Reads to the end of `in`. The exit status: 0; 2 to 5 as in exit_status.h; 128 + N after signal
/// N.
int run_score(const ScoreOptions& options, std::istream& in, std::ostream& out);

}  // namespace chainpump::cli
