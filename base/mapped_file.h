// A regular file mapped read-only. Refuses what is not a regular file (devices, pipes, folders), so
// that its size is a fact. Immutable after open; any thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"

namespace chainpump {

class MappedFile {
 public:
  /// not_found if it cannot be opened, bad_file if it is not a regular file or is empty.
  static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  /// The whole file; valid while this object lives. Touching pages past a later truncation by
  /// somebody else raises SIGBUS, which ends the process.
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace chainpump
