#include "base/own_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace chainpump {

bool is_own(const struct stat& st) {
  return st.st_uid == ::geteuid() && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

Result<UniqueFd> open_own_folder(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder.parent_path(), ignored);
  ::mkdir(folder.c_str(), 0700);  // fails where it is there; then open() tells
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st {};
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0)
    return make_error(ErrorCode::not_found, "cannot be opened: {}", std::strerror(errno));
  if (!is_own(st)) return make_error(ErrorCode::bad_file, "can be written by others");
  return fd;
}

}  // namespace chainpump
