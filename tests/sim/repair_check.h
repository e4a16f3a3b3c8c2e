// Whether a lane repairs itself with no more work than it must: no stage computes a position again
// but to make what no log holds. Looks at what the stages hold, not at what the sequencer takes
// them to hold. Pure; one thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "graph/microbatch.h"
#include "tests/sim/stage_memory.h"

namespace chainpump::sim {

/// What is wrong with a microbatch that is formed when nothing else is under way, or empty.
/// `running`: who has blocks.
std::string check_minimal(const graph::Microbatch& microbatch, std::span<const SequenceId> running,
                          const std::vector<const StageMemory*>& stages);

}  // namespace chainpump::sim
