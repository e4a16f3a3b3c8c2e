// `chainpump top`: a service's stages as they work, seen again and again. One thread.
#pragma once

#include <cstdint>
#include <string>

namespace chainpump::cli {

struct TopOptions {
  std::string name;       // a service's; empty: the only one that runs
  double interval_s = 1;  // between two looks
  int32_t num_views = 0;  // 0: on a terminal until it is interrupted, else 1
};

/// The exit status: 0; 3 if there is no such service, 5 if it has gone or does not answer.
int run_top(const TopOptions& options);

}  // namespace chainpump::cli
