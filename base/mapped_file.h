// A regular file mapped read-only. Refuses what is not a regular file (devices, pipes, folders), so
// that its size is a fact. Immutable after open; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

#include "base/result.h"

namespace chainpump {

/// What tells one state of a file from another without reading it. Every write through the file
/// system moves `changed_ns` (its inode's change time), which no call can set back; a copy has an
/// inode of its own.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  int64_t changed_ns = 0;
  bool operator==(const FileIdentity&) const = default;
};

/// Of what `path` names now; nothing if that cannot be told.
std::optional<FileIdentity> file_identity(const std::filesystem::path& path);

/// `opened`, if that is still what `path` names, and will stay what it is for as long as the file
/// does; else all zero. A file that has changed within `settle_ns` may change again without its
/// times moving.
FileIdentity settled_identity(const std::filesystem::path& path, const FileIdentity& opened,
                              int64_t settle_ns);

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
  /// As it was when the file was opened.
  const FileIdentity& identity() const { return identity_; }

 private:
  MappedFile(std::filesystem::path path, const FileIdentity& identity, const std::byte* data,
             size_t size)
      : path_(std::move(path)), identity_(identity), data_(data), size_(size) {}

  std::filesystem::path path_;
  FileIdentity identity_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace chainpump
