// What every writer of a file does. Any thread, one per descriptor.
#pragma once

#include <cstddef>
#include <span>

namespace chainpump {

/// Writes all of `bytes` at the descriptor's place, however often a signal comes between; false
/// with errno.
bool write_whole(int fd, std::span<const std::byte> bytes);

}  // namespace chainpump
