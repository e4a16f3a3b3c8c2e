#include "gateway/service_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace chainpump::gateway {
namespace {

constexpr int kBacklog = 128;

/// An absolute path from the environment, or empty: relative ones would change with the folder.
std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] == '/' ? value : "";
}

std::filesystem::path services_folder() {
  if (const std::string path = from_environment("CHAINPUMP_RUN_DIR"); !path.empty()) return path;
  if (const std::string path = from_environment("XDG_RUNTIME_DIR"); !path.empty())
    return std::filesystem::path(path) / "chainpump";
  return fmt::format("{}/chainpump-{}", P_tmpdir, ::geteuid());
}

/// Makes it, or sees that it is ours alone.
Status own_folder(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return make_error(ErrorCode::no_room, "{}: cannot make the folder: {}", path.string(),
                      std::strerror(errno));
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0)
    return make_error(ErrorCode::no_room, "{}: {}", path.string(), std::strerror(errno));
  if (!S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() || (found.st_mode & 077) != 0)
    return make_error(ErrorCode::invalid_argument,
                      "{}: must be a folder of the user who starts the service, with mode 0700",
                      path.string());
  return ok_status();
}

}  // namespace

std::filesystem::path service_folder(const std::string& graph_name) {
  return services_folder() / graph_name;
}

std::filesystem::path service_socket(const std::string& graph_name) {
  return service_socket(services_folder(), graph_name);
}

std::filesystem::path service_socket(const std::filesystem::path& services,
                                     const std::string& graph_name) {
  return services / graph_name / kServiceSocket;
}

Result<ServiceFolder> ServiceFolder::create(const std::string& graph_name) {
  ServiceFolder folder(service_folder(graph_name));
  const std::filesystem::path all = folder.path_.parent_path();
  std::error_code ignored;
  std::filesystem::create_directories(all.parent_path(), ignored);
  RETURN_IF_ERROR(own_folder(all));
  RETURN_IF_ERROR(own_folder(folder.path_));
  RETURN_IF_ERROR(folder.lock());
  RETURN_IF_ERROR(folder.listen());
  return folder;
}

Status ServiceFolder::lock() {
  const std::string path = (path_ / "lock").string();
  while (true) {
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file.valid())
      return make_error(ErrorCode::no_room, "{}: cannot be opened: {}", path, std::strerror(errno));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      char holder[32] = {};
      [[maybe_unused]] const ssize_t got = ::pread(file.get(), holder, sizeof holder - 1, 0);
      return make_error(ErrorCode::overloaded,
                        "a service named '{}' runs already (process {}); end it first, or give the "
                        "graph another name",
                        path_.filename().string(), std::strtol(holder, nullptr, 10));
    }
    // Whoever held it may have removed it meanwhile: then it is not what others would lock.
    struct stat ours {
    }, there{};
    if (::fstat(file.get(), &ours) != 0 || ::stat(path.c_str(), &there) != 0 ||
        ours.st_ino != there.st_ino)
      continue;
    const std::string pid = fmt::format("{}\n", ::getpid());
    if (::ftruncate(file.get(), 0) != 0 ||
        ::pwrite(file.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
      return make_error(ErrorCode::no_room, "{}: cannot be written: {}", path,
                        std::strerror(errno));
    lock_ = std::move(file);
    return ok_status();
  }
}

Status ServiceFolder::listen() {
  const std::string path = socket_path();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return make_error(ErrorCode::invalid_argument,
                      "{}: a socket's path may have {} bytes at most, this one has {} (set "
                      "CHAINPUMP_RUN_DIR to a shorter folder)",
                      path, sizeof address.sun_path - 1, path.size());
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ::unlink(path.c_str());  // ours since we hold the lock
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener_.valid() ||
      ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(path.c_str(), 0600) != 0 || ::listen(listener_.get(), kBacklog) != 0)
    return make_error(ErrorCode::no_room, "{}: cannot listen: {}", path, std::strerror(errno));
  return ok_status();
}

ServiceFolder::~ServiceFolder() {
  if (!lock_.valid()) return;  // not ours to remove
  std::error_code ignored;
  std::filesystem::remove(path_ / kServiceSocket, ignored);
  std::filesystem::remove(path_ / "lock", ignored);
  std::filesystem::remove(path_, ignored);
}

}  // namespace chainpump::gateway
