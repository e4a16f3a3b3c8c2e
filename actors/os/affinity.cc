#include "actors/os/affinity.h"

#include <sched.h>

namespace chainpump::os {
namespace {

constexpr int kLogicalCoresMax = 1 << 16;

}  // namespace

void keep_off(std::span<const int> cores) {
  cpu_set_t set;
  // Fails on machines of more than 1,024 logical CPUs: there is room enough.
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  for (const int core : cores)
    if (core >= 0 && core < CPU_SETSIZE) CPU_CLR(static_cast<size_t>(core), &set);
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof set, &set);
}

std::vector<int> usable_cores() {
  // The kernel refuses a set smaller than its own.
  for (int size = 1024; size <= kLogicalCoresMax; size *= 2) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<size_t>(size));
    const size_t set_bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    CPU_ZERO_S(set_bytes, set);
    std::vector<int> cores;
    if (sched_getaffinity(0, set_bytes, set) == 0)
      for (int core = 0; core < size; ++core)
        if (CPU_ISSET_S(static_cast<size_t>(core), set_bytes, set)) cores.push_back(core);
    CPU_FREE(set);
    if (!cores.empty()) return cores;
  }
  return {0};
}

}  // namespace chainpump::os
