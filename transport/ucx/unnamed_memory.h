// Shared memory for UCX that has no name, so that no kill can leave it behind. UCX 1.13 to 1.22
// makes each segment as a file in /dev/shm, fills it (milliseconds), and only then removes the
// name, since its peers open the segment as /proc/PID/fd/N: a rank killed in between leaves up to
// 16 MiB there until the machine restarts. A program that links this folder answers UCX's
// shm_open() itself, with a memfd, which ends with the last process that maps it. /dev/shm's size
// no longer limits the segments then; what the processes may use does, as for any memory of theirs.
//
// Every other name that anybody in the process asks shm_open() for goes to the C library. Any
// thread.
#pragma once

#include "base/result.h"

namespace chainpump::transport {

/// Tells UCX to share its segments by descriptor: sets UCX_POSIX_DIR and UCX_POSIX_USE_PROC_LINK to
/// UCX's own defaults, whatever they were, because without them the memory has names. Call it
/// before UCX reads its settings. no_room if /dev/shm is full: UCX looks there before it asks for
/// memory.
Status use_unnamed_memory();

}  // namespace chainpump::transport
