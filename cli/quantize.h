// `chainpump quantize IN OUT --type T`: a weights file with other types, by models/quantize. Shows
// progress on a terminal, then what became of the tensors. SIGINT and SIGTERM leave nothing behind.
// One thread, the command's; called before any other is made.
#pragma once

#include <string>

namespace chainpump::cli {

struct QuantizeVerbOptions {
  std::string input;
  std::string output;
  std::string type;
  int num_threads = 0;  // 0: one per core that this process may use
  bool replace = false;
};

/// What --help says beside the flags: the types, and which tensor takes which.
std::string quantize_help();

/// Exit status: 0; 2 a wrong command line; 3 a bad or missing input; 4 no room; 5 a failure at run
/// time; 128 + N after signal N.
int run_quantize(const QuantizeVerbOptions& options);

}  // namespace chainpump::cli
