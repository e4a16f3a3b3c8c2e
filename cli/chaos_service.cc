#include "cli/chaos_service.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "gateway/service_folder.h"

namespace chainpump::cli {
namespace {

constexpr Duration kEndMax = std::chrono::seconds(20);
constexpr std::string_view kRankLabel = "rank-";

std::string log_path(const std::string& folder) { return folder + "/log"; }

std::optional<ServiceProcess> service_process(ProcessName name) {
  const std::vector<std::string> arguments = arguments_of(name.pid);
  if (arguments.size() < 2) return std::nullopt;
  for (ServiceRole role : {ServiceRole::gateway, ServiceRole::coordinator, ServiceRole::agent})
    if (arguments[1] == to_string(role)) return ServiceProcess{.role = role, .name = name};
  if (arguments[1] != to_string(ServiceRole::rank) || arguments.size() < 3 ||
      !arguments[2].starts_with(kRankLabel))
    return std::nullopt;
  ServiceProcess rank{.role = ServiceRole::rank, .name = name};
  const char* const end = arguments[2].data() + arguments[2].size();
  if (std::from_chars(arguments[2].data() + kRankLabel.size(), end, rank.number).ptr != end)
    return std::nullopt;
  return rank;
}

}  // namespace

Result<PrivateFolder> PrivateFolder::create() {
  std::error_code error;
  std::string path =
      (std::filesystem::temp_directory_path(error) / "chainpump-chaos-XXXXXX").string();
  if (error || ::mkdtemp(path.data()) == nullptr)
    return make_error(ErrorCode::no_room, "{}: cannot make a folder: {}", path,
                      std::strerror(errno));
  return PrivateFolder(std::move(path));
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  if (path_) std::filesystem::remove_all(*path_, ignored);
}

Result<ChaosService> ChaosService::start(const std::string& folder,
                                         const std::vector<std::string>& arguments) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0)
    return make_error(ErrorCode::no_room, "pipe: {}", std::strerror(errno));
  UniqueFd reader(fds[0]), writer(fds[1]);
  const UniqueFd log(
      ::open(log_path(folder).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log.valid())
    return make_error(ErrorCode::no_room, "{}: {}", log_path(folder), std::strerror(errno));
  os::SpawnOptions options;
  options.program = os::self_exe();
  options.argv = {"chainpump", "serve"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.environment = {{"CHAINPUMP_RUN_DIR", folder}};
  options.descriptors = {{writer.get(), STDOUT_FILENO}, {log.get(), STDERR_FILENO}};
  ASSIGN_OR_RETURN(os::Process process, os::spawn(options));
  return ChaosService(folder, std::move(process), std::move(reader));
}

ChaosService::~ChaosService() {
  if (!output_.valid()) return;  // it was moved
  if (process_.kill(SIGTERM).ok()) (void)process_.wait(kEndMax);
}

Status ChaosService::wait_ready(Duration patience) {
  const TimePoint deadline = steady_clock().now() + patience;
  while (!said_.starts_with("ready: ") || said_.back() != '\n') {
    const Duration left = deadline - steady_clock().now();
    pollfd ready{output_.get(), POLLIN, 0};
    if (left <= Duration(0) || ::poll(&ready, 1, static_cast<int>(to_ms(left)) + 1) == 0)
      return make_error(ErrorCode::deadline_exceeded, "the service is not ready");
    char text[256];
    const ssize_t got = ::read(output_.get(), text, sizeof text);
    if (got == 0)
      return make_error(ErrorCode::disconnected, "the service has ended before it was ready");
    if (got > 0) said_.append(text, static_cast<size_t>(got));
  }
  return ok_status();
}

Status ChaosService::check_alive() {
  const Result<os::ExitStatus> end = process_.wait(Duration(0));
  if (!end.ok()) return ok_status();
  return make_error(ErrorCode::disconnected, "the service has ended: {}", os::to_string(*end));
}

std::vector<ServiceProcess> ChaosService::processes() const {
  std::vector<ServiceProcess> out;
  for (const ProcessName& child : children_of(process_.pid())) {
    const auto process = service_process(child);
    if (!process) continue;
    out.push_back(*process);
    if (process->role != ServiceRole::agent) continue;
    for (const ProcessName& rank : children_of(child.pid))
      if (const auto found = service_process(rank)) out.push_back(*found);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string ChaosService::complaints() const {
  std::ifstream file(log_path(folder_), std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string ChaosService::last_said(const std::string& text) const {
  std::istringstream lines(complaints());
  std::string found;
  for (std::string line; std::getline(lines, line);)
    if (line.find(text) != std::string::npos) found = line;
  return found;
}

std::string ChaosService::process_folder(const std::string& graph_name) const {
  return gateway::service_socket(folder_, graph_name).parent_path().string();
}

std::string ChaosService::socket(const std::string& graph_name) const {
  return gateway::service_socket(folder_, graph_name).string();
}

}  // namespace chainpump::cli
