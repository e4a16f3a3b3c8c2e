#include "actors/os/affinity.h"

#include <sched.h>

#include <algorithm>

namespace chainpump::os {

void keep_off(std::span<const int> cores) {
  cpu_set_t set;
  // Fails on machines of more than 1,024 logical CPUs: there is room enough.
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  for (const int core : cores)
    if (core >= 0 && core < CPU_SETSIZE) CPU_CLR(static_cast<size_t>(core), &set);
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof set, &set);
}

int num_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace chainpump::os
