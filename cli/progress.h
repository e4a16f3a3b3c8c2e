// Progress of long work on standard error, one line that is rewritten; nothing where standard error
// is no terminal, where nothing else is said. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/ids.h"
#include "graph/plan.h"

namespace chainpump::cli {

/// Shows the weights of all stages together: bytes, rate, time left.
std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)> load_progress(
    const graph::Plan& plan);

/// The same for one piece of work, `what`: "quantizing".
std::function<void(int64_t bytes_done, int64_t bytes_total)> byte_progress(std::string what);

/// One that counts other things: rewrites the line, on a terminal; elsewhere adds one.
void show_progress(const std::string& line);
bool progress_is_rewritten();

/// Clears the line, if there is one.
void end_progress();

}  // namespace chainpump::cli
