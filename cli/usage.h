// What to say to a command line that cannot be understood: what is wrong, what was probably meant,
// and where to read on. One thread, the command's.
#pragma once

#include <CLI/App.hpp>

namespace chainpump::cli {

/// Prints help or version to standard output and returns 0 if that was asked for; else explains
/// `error`, which parsing `app`'s command line gave, on standard error and returns 2.
int usage_exit(const CLI::App& app, const CLI::ParseError& error);

}  // namespace chainpump::cli
