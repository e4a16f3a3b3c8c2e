// How much memory this process may still use. Any thread.
#pragma once

#include <cstdint>
#include <filesystem>

namespace chainpump::os {

/// What the system has available or what the control groups of this process allow (v1 and v2, every
/// ancestor), whichever is less; 1 GiB if nothing says. `root` is where /proc and /sys are looked
/// for.
int64_t usable_memory_bytes(const std::filesystem::path& root = "/");

}  // namespace chainpump::os
