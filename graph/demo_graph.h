// The graph of `chainpump run demo`, built in. Its model is found by the command line.
#pragma once

#include <string_view>

namespace chainpump::graph {

inline constexpr std::string_view kDemoGraph =
    "version: 1\n"
    "name: demo\n"
    "stages: 3\n"
    "partition: auto\n";

}  // namespace chainpump::graph
