// Where a service of this machine is found: a folder per graph name under $CHAINPUMP_RUN_DIR, else
// $XDG_RUNTIME_DIR/chainpump, else chainpump-UID in the system's folder for temporary files. It
// holds the socket `gateway.sock` and the file `lock`, which the service keeps locked for as long
// as it lives: so what a killed one left behind is told from a live one's. Every folder is 0700 and
// its user's own, the socket 0600. One thread.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::gateway {

inline constexpr const char* kServiceSocket = "gateway.sock";

/// The folder of one graph's service; says nothing about whether there is one.
std::filesystem::path service_folder(const std::string& graph_name);
std::filesystem::path service_socket(const std::string& graph_name);
/// The same of a service whose CHAINPUMP_RUN_DIR is `services`.
std::filesystem::path service_socket(const std::filesystem::path& services,
                                     const std::string& graph_name);

/// A service's own hold on its folder.
class ServiceFolder {
 public:
  /// Makes the folder, takes the lock, removes what a dead service left, and listens.
  /// overloaded: a service of this name lives, and its pid is named; invalid_argument: a folder on
  /// the way is somebody else's or open to others, or the socket's path is too long; no_room.
  static Result<ServiceFolder> create(const std::string& graph_name);
  ServiceFolder(ServiceFolder&&) noexcept = default;
  ServiceFolder& operator=(ServiceFolder&&) = delete;
  /// Removes socket, lock and folder.
  ~ServiceFolder();

  std::string socket_path() const { return (path_ / kServiceSocket).string(); }
  /// The listening socket, for whoever serves it; stays this object's.
  int listener() const { return listener_.get(); }

 private:
  explicit ServiceFolder(std::filesystem::path path) : path_(std::move(path)) {}
  Status lock();
  Status listen();

  std::filesystem::path path_;
  UniqueFd lock_;
  UniqueFd listener_;
};

}  // namespace chainpump::gateway
