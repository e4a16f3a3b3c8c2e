#include "base/atomic_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_io.h"

namespace chainpump {
namespace {

Status check_target(const std::filesystem::path& path, bool replace) {
  struct stat st;
  if (::stat(path.c_str(), &st) != 0) return ok_status();
  if (!S_ISREG(st.st_mode))
    return make_error(ErrorCode::invalid_argument, "{}: exists and is not a regular file",
                      path.string());
  if (!replace) return make_error(ErrorCode::invalid_argument, "{}: exists already", path.string());
  return ok_status();
}

// The .partial, locked by this process. What a killed writer left there is taken over; a live
// writer's is refused. Since a writer may have renamed it between open and lock, both are compared.
Result<UniqueFd> open_partial(const std::filesystem::path& path) {
  const std::filesystem::path partial = partial_path(path);
  UniqueFd fd(
      ::open(partial.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  if (!fd.valid())
    return make_error(
        errno == ENOSPC || errno == EDQUOT ? ErrorCode::no_room : ErrorCode::not_found,
        "{}: cannot be made: {}", partial.string(), std::strerror(errno));
  struct stat opened;
  struct stat named;
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 || ::fstat(fd.get(), &opened) != 0 ||
      ::stat(partial.c_str(), &named) != 0 || opened.st_dev != named.st_dev ||
      opened.st_ino != named.st_ino)
    return make_error(ErrorCode::overloaded, "{}: another process is writing it", partial.string());
  if (!S_ISREG(opened.st_mode))
    return make_error(ErrorCode::invalid_argument, "{}: is not a regular file", partial.string());
  if (::ftruncate(fd.get(), 0) != 0)
    return make_error(ErrorCode::internal, "{}: ftruncate: {}", partial.string(),
                      std::strerror(errno));
  return fd;
}

}  // namespace

std::filesystem::path partial_path(const std::filesystem::path& path) {
  return path.native() + ".partial";
}

bool is_same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  struct stat first;
  struct stat second;
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

Result<AtomicFile> AtomicFile::create(const std::filesystem::path& path, int64_t bytes,
                                      bool replace) {
  RETURN_IF_ERROR(check_target(path, replace));
  ASSIGN_OR_RETURN(UniqueFd fd, open_partial(path));
  AtomicFile file(path, replace, std::move(fd));
  // Room now rather than an error after an hour; a file system without reservations says so. The
  // size stays, so that a reader never takes reserved room for content.
  if (bytes > 0 && ::fallocate(file.fd_.get(), FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
    return make_error(ErrorCode::no_room, "{}: {} bytes do not fit: {}", path.string(), bytes,
                      std::strerror(errno));
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), replace_(other.replace_), fd_(std::move(other.fd_)) {}

AtomicFile::~AtomicFile() {
  if (fd_.valid()) ::unlink(partial_path(path_).c_str());
}

Error AtomicFile::failed(const char* call) const {
  const bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
  return make_error(full ? ErrorCode::no_room : ErrorCode::internal, "{}: {}: {}", path_.string(),
                    call, std::strerror(errno));
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  if (!write_whole(fd_.get(), bytes)) return failed("write");
  return ok_status();
}

Status AtomicFile::commit() {
  const std::filesystem::path partial = partial_path(path_);
  if (::fsync(fd_.get()) != 0) return failed("fsync");
  const unsigned flags = replace_ ? 0 : RENAME_NOREPLACE;
  int renamed = ::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, path_.c_str(), flags);
  if (renamed != 0 && errno == EINVAL && !replace_) {  // a file system without that flag
    RETURN_IF_ERROR(check_target(path_, replace_));
    renamed = ::rename(partial.c_str(), path_.c_str());
  }
  if (renamed != 0 && errno == EEXIST)
    return make_error(ErrorCode::invalid_argument, "{}: exists already", path_.string());
  if (renamed != 0) return failed("rename");
  fd_.reset();
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const UniqueFd parent(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid() || ::fsync(parent.get()) != 0) return failed("fsync of its folder");
  return ok_status();
}

}  // namespace chainpump
