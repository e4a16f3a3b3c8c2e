// What every reader and writer of a file does. Any thread, one per descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

namespace chainpump {

/// Writes all of `bytes` at the descriptor's place, however often a signal comes between; false
/// with errno.
bool write_whole(int fd, std::span<const std::byte> bytes);
/// The same at `offset`.
bool write_whole(int fd, std::span<const std::byte> bytes, uint64_t offset);
/// Fills `bytes` from `offset` on; false with errno, which is 0 where the file ends before.
bool read_whole(int fd, std::span<std::byte> bytes, uint64_t offset);

/// The text of a regular file of at most `bytes_max` bytes; nothing else is read, and nothing
/// waits.
std::optional<std::string> read_small_file(const std::filesystem::path& path, size_t bytes_max);

}  // namespace chainpump
