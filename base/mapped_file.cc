#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/unique_fd.h"

namespace chainpump {
namespace {

int64_t nanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

FileIdentity identity_of(const struct stat& st) {
  return {.device = st.st_dev,
          .inode = st.st_ino,
          .bytes = static_cast<uint64_t>(st.st_size),
          .modified_ns = nanoseconds(st.st_mtim),
          .changed_ns = nanoseconds(st.st_ctim)};
}

}  // namespace

std::optional<FileIdentity> file_identity(const std::filesystem::path& path) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return std::nullopt;
  return identity_of(st);
}

FileIdentity settled_identity(const std::filesystem::path& path, const FileIdentity& opened,
                              int64_t settle_ns) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t before = nanoseconds(now) - settle_ns;
  if (opened.changed_ns > before || opened.modified_ns > before) return {};
  return file_identity(path) == opened ? opened : FileIdentity{};
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid())
    return make_error(ErrorCode::not_found, "{}: cannot open: {}", path.string(),
                      std::strerror(errno));
  struct stat st;
  if (::fstat(fd.get(), &st) != 0)
    return make_error(ErrorCode::bad_file, "{}: cannot stat: {}", path.string(),
                      std::strerror(errno));
  if (!S_ISREG(st.st_mode))
    return make_error(ErrorCode::bad_file, "{}: not a regular file", path.string());
  if (st.st_size == 0) return make_error(ErrorCode::bad_file, "{}: empty file", path.string());
  const auto size = static_cast<size_t>(st.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED)
    return make_error(ErrorCode::bad_file, "{}: cannot map {} bytes: {}", path.string(), size,
                      std::strerror(errno));
  return MappedFile(path, identity_of(st), static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      identity_(other.identity_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(identity_, other.identity_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace chainpump
