// A new file that appears under its name only when it is whole: it is written beside that name, as
// NAME.partial, synced, and then renamed. However the writer ends before commit(), NAME is as it
// was; the .partial goes with the object (a killed process leaves one behind, which the next writer
// takes over). One thread; one writer of a name at a time, others are refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump {

class AtomicFile {
 public:
  /// Makes room for `bytes` at once, where the file system can. no_room if they do not fit;
  /// invalid_argument if `path` exists and `replace` is false, or is no regular file; overloaded
  /// if another process is writing it; not_found if its folder cannot be written.
  static Result<AtomicFile> create(const std::filesystem::path& path, int64_t bytes, bool replace);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  ~AtomicFile();

  /// Appends. no_room if the disk, a quota or a limit is full; internal for another failure.
  Status write(std::span<const std::byte> bytes);
  /// Syncs the file, gives it its name and syncs the folder. Once; the file is closed then.
  Status commit();

 private:
  AtomicFile(std::filesystem::path path, bool replace, UniqueFd fd)
      : path_(std::move(path)), replace_(replace), fd_(std::move(fd)) {}
  Error failed(const char* call) const;

  std::filesystem::path path_;
  bool replace_ = false;
  UniqueFd fd_;
};

/// Where `path` is written until it is whole.
std::filesystem::path partial_path(const std::filesystem::path& path);

/// Whether both name one file, by whatever links. False if either does not exist.
bool is_same_file(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace chainpump
