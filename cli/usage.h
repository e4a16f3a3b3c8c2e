// What to say to a command line that cannot be understood: what is wrong, what was probably meant,
// and where to read on. One thread, the command's.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace chainpump::cli {

/// The parsing library takes an empty argument, what a script makes of an unset variable, for 0:
/// here it is an error, for every number of every verb. Called once all flags are there.
void refuse_empty_numbers(CLI::App& app);

/// A check of options, the error or nothing: the library would wrap a negative number round, and
/// cut off one that is too large.
std::string is_seed(const std::string& text);

/// Prints help or version to standard output and returns 0 if that was asked for; else explains
/// `error`, which parsing `app`'s command line gave, on standard error and returns 2.
int usage_exit(const CLI::App& app, const CLI::ParseError& error);

}  // namespace chainpump::cli
