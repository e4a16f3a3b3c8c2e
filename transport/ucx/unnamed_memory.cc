#include "transport/ucx/unnamed_memory.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace {

constexpr std::string_view kUcxNameBegin = "/ucx_shm_posix_";

bool is_of_ucx(const char* name) { return std::string_view(name).starts_with(kUcxNameBegin); }

}  // namespace

// The program's own definitions come before the C library's for UCX and everyone else in the
// process (the build exports them; use_unnamed_memory() checks it).

extern "C" int shm_open(const char* name, int flags, mode_t mode) {
  if ((flags & O_CREAT) != 0 && is_of_ucx(name)) {
    const int fd = memfd_create(name + 1, MFD_CLOEXEC);
    if (fd >= 0) static_cast<void>(fchmod(fd, mode));
    return fd;
  }
  static const auto next = reinterpret_cast<decltype(&shm_open)>(dlsym(RTLD_NEXT, "shm_open"));
  return next(name, flags, mode);
}

extern "C" int shm_unlink(const char* name) {
  if (is_of_ucx(name)) return 0;  // it never had this name
  static const auto next = reinterpret_cast<decltype(&shm_unlink)>(dlsym(RTLD_NEXT, "shm_unlink"));
  return next(name);
}

namespace chainpump::transport {
namespace {

constexpr const char* kFolder = "/dev/shm";

}  // namespace

Status use_unnamed_memory() {
  for (const auto& [name, ours] : {std::pair("shm_open", reinterpret_cast<void*>(&shm_open)),
                                   std::pair("shm_unlink", reinterpret_cast<void*>(&shm_unlink))})
    CHECK_MSG(dlsym(RTLD_DEFAULT, name) == ours, "this program does not export {}", name);
  setenv("UCX_POSIX_DIR", kFolder, 1);
  setenv("UCX_POSIX_USE_PROC_LINK", "y", 1);
  struct statvfs space {};
  if (statvfs(kFolder, &space) != 0)
    return make_error(ErrorCode::no_room, "shared memory links need {}: {}", kFolder,
                      std::strerror(errno));
  if (space.f_bavail == 0)
    return make_error(ErrorCode::no_room,
                      "{} is full, and UCX makes no shared memory then: free some of it, or use "
                      "links over tcp",
                      kFolder);
  return ok_status();
}

}  // namespace chainpump::transport
