// Where a process's threads may run. A rank's compute threads own their cores; the threads that
// only serve them (RPC) are kept off those cores, because what they do for one token would delay
// the computing of the next.
// Thread rule: concerns the calling thread, and threads that it makes later.
#pragma once

#include <span>
#include <vector>

namespace chainpump::os {

/// Lets the calling thread run on every core that it may use now but `cores`. Without any other
/// core it stays as it is: giving way is a preference, not a need.
void keep_off(std::span<const int> cores);
/// The cores that the calling thread may run on; the first alone where the system does not tell.
std::vector<int> usable_cores();

}  // namespace chainpump::os
