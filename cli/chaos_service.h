// A service of `chainpump chaos`'s own: `chainpump serve` as a child, in a folder of its own, where
// no other command looks for services; and its processes, which faults are aimed at. It ends with
// the thread that started it, and nothing of it is left then. One thread.
#pragma once

#include <compare>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/os/process.h"
#include "base/result.h"
#include "cli/chaos_schedule.h"
#include "cli/process_facts.h"

namespace chainpump::cli {

/// A new folder of this user's alone, removed with all that is in it.
class PrivateFolder {
 public:
  static Result<PrivateFolder> create();
  PrivateFolder(PrivateFolder&& other) noexcept = default;
  PrivateFolder& operator=(PrivateFolder&&) = delete;
  ~PrivateFolder();
  std::string path() const { return path_->string(); }

 private:
  explicit PrivateFolder(std::string path)
      : path_(std::make_unique<std::filesystem::path>(std::move(path))) {}
  std::unique_ptr<std::filesystem::path> path_;
};

struct ServiceProcess {
  ServiceRole role = ServiceRole::rank;
  uint32_t number = 0;  // of a rank, by which its agent knows it; the one after it has the same
  ProcessName name;
  auto operator<=>(const ServiceProcess&) const = default;
};

class ChaosService {
 public:
  /// `arguments` are those of `serve`; sockets lie below `folder`, which outlives it.
  static Result<ChaosService> start(const std::string& folder,
                                    const std::vector<std::string>& arguments);
  ChaosService(ChaosService&&) noexcept = default;
  /// Asks it to end, and kills it if it does not.
  ~ChaosService();

  /// deadline_exceeded: not within `patience`; disconnected: it has ended instead.
  Status wait_ready(Duration patience);
  /// Ok while its supervisor lives.
  Status check_alive();
  /// By role and number; those that there are now.
  std::vector<ServiceProcess> processes() const;
  std::string socket(const std::string& graph_name) const;
  /// Where its processes' sockets are.
  std::string process_folder(const std::string& graph_name) const;
  /// What its processes have said on standard error.
  std::string complaints() const;
  bool has_said(const std::string& text) const {
    return complaints().find(text) != std::string::npos;
  }
  /// The last line of them with this text; empty if there is none.
  std::string last_said(const std::string& text) const;

 private:
  ChaosService(std::string folder, os::Process process, UniqueFd output)
      : folder_(std::move(folder)), process_(std::move(process)), output_(std::move(output)) {}

  std::string folder_;
  os::Process process_;
  UniqueFd output_;  // its standard output
  std::string said_;
};

}  // namespace chainpump::cli
