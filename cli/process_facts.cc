#include "cli/process_facts.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace chainpump::cli {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

std::optional<ProcessName> name_of(pid_t pid) {
  const std::string text = read_file(fmt::format("/proc/{}/stat", pid));
  const size_t name_end = text.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string state;
  fields >> state;
  if (state == "Z" || state == "X") return std::nullopt;
  std::string skipped;
  for (int i = 0; i < 18; ++i) fields >> skipped;
  ProcessName name{.pid = pid};
  fields >> name.started;  // field 22, proc(5)
  if (!fields) return std::nullopt;
  return name;
}

std::vector<ProcessName> children_of(pid_t pid) {
  std::vector<ProcessName> out;
  std::error_code error;
  for (std::filesystem::directory_iterator task(fmt::format("/proc/{}/task", pid), error), end;
       !error && task != end; task.increment(error)) {
    std::istringstream children(read_file(task->path() / "children"));
    for (pid_t child = 0; children >> child;)
      if (const auto name = name_of(child)) out.push_back(*name);
  }
  return out;
}

std::vector<std::string> arguments_of(pid_t pid) {
  std::istringstream text(read_file(fmt::format("/proc/{}/cmdline", pid)));
  std::vector<std::string> out;
  for (std::string argument; std::getline(text, argument, '\0');) out.push_back(argument);
  return out;
}

std::optional<Holdings> holdings_of(pid_t pid) {
  Holdings out;
  std::istringstream status(read_file(fmt::format("/proc/{}/status", pid)));
  std::error_code error;
  std::filesystem::directory_iterator fd(fmt::format("/proc/{}/fd", pid), error);
  if (error) return std::nullopt;
  for (const std::filesystem::directory_iterator end; !error && fd != end; fd.increment(error))
    ++out.num_fds;
  for (std::string line; std::getline(status, line);) {
    constexpr std::string_view kKey = "RssAnon:";
    if (!line.starts_with(kKey)) continue;
    out.private_bytes = std::strtoll(line.c_str() + kKey.size(), nullptr, 10) * 1024;
    return out;
  }
  return std::nullopt;
}

Result<UniqueFd> open_process(ProcessName process) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  if (!fd.valid() && errno != ESRCH)
    return make_error(ErrorCode::internal, "pidfd_open: {}", std::strerror(errno));
  if (!fd.valid() || name_of(process.pid) != process)
    return make_error(ErrorCode::not_found, "process {} is gone", process.pid);
  return fd;
}

bool send_signal(const UniqueFd& process, int number) {
  return ::syscall(SYS_pidfd_send_signal, process.get(), number, nullptr, 0) == 0;
}

}  // namespace chainpump::cli
