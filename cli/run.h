// `chainpump run`: one prompt, or a chat on the terminal, over a deployment that lives as long as
// the command. Text goes to standard output as it is made; summary and errors to standard error.
#pragma once

#include <optional>
#include <string>

#include "cli/deploy.h"
#include "graph/sampling_params.h"

namespace chainpump::cli {

struct RunOptions {
  DeployOptions deploy;
  std::optional<std::string> prompt;  // "-": standard input
  std::optional<std::string> prompt_file;
  std::optional<std::string> prompt_ids;  // "1,2,3"
  std::string system;                     // the chat's system message
  bool chat = false;                      // the chat template, or an error
  bool raw = false;                       // the prompt as it is
  bool json = false;
  graph::SamplingParams sampling;
  std::optional<uint64_t> seed;  // else one is drawn and reported
};

/// The exit status: 0; 2 to 5 as in exit_status.h; 128 + N after signal N.
int run_run(RunOptions options);

}  // namespace chainpump::cli
