#include "actors/os/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>

extern char** environ;

namespace chainpump::os {
namespace {

constexpr int kTargetMax = 255;  // of a child's descriptor; each one below is closed one by one
constexpr Duration kReapMax = std::chrono::seconds(5);
constexpr int kErrorFdNumber = 3;  // where the child keeps the error pipe before descriptors move

Error errno_error(const char* call, int error) {
  const bool full = error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE;
  return make_error(full ? ErrorCode::no_room : ErrorCode::internal, "{}: {}", call,
                    strerror(error));
}

/// What the child needs after fork, made before it: nothing there may allocate.
struct ChildImage {
  const char* program = nullptr;
  std::vector<char*> argv;
  std::vector<char*> environment;
  std::vector<std::pair<int, int>> descriptors;  // (high copy of ours, the child's number)
  pid_t parent = 0;
  bool new_process_group = false;
  int error_fd = -1;
};

std::vector<std::string> merged_environment(const SpawnOptions& options) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced = std::any_of(options.environment.begin(), options.environment.end(),
                                      [&](const auto& added) { return added.first == name; });
    if (!replaced) merged.emplace_back(text);
  }
  for (const auto& [name, value] : options.environment) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

/// Only calls that are safe between fork and exec. Returns errno of the call that failed.
int prepare_child(const ChildImage& image) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return errno;
  // The parent may have died before the line above; then nobody would ever end us.
  if (getppid() != image.parent) _exit(127);
  if (image.new_process_group && setpgid(0, 0) != 0) return errno;
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action;
    std::memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);  // fails for SIGKILL, SIGSTOP and the reserved ones
  }
  // All sources are above every target, so no move overwrites what another still needs.
  int highest = 2;
  for (const auto& [source, target] : image.descriptors) {
    if (dup2(source, target) < 0) return errno;
    if (target > highest) highest = target;
  }
  int next = 3;
  for (; next <= highest; ++next) {
    bool wanted = false;
    for (const auto& [source, target] : image.descriptors) wanted |= target == next;
    if (!wanted) close(next);
  }
  const auto error_fd = static_cast<unsigned>(image.error_fd);
  if (error_fd > static_cast<unsigned>(next))
    syscall(SYS_close_range, static_cast<unsigned>(next), error_fd - 1, 0u);
  if (syscall(SYS_close_range, error_fd + 1, ~0u, 0u) != 0) return errno;
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, nullptr) != 0) return errno;
  execve(image.program, image.argv.data(), image.environment.data());
  return errno;
}

[[noreturn]] void run_child(const ChildImage& image) {
  const int error = prepare_child(image);
  [[maybe_unused]] const ssize_t written = write(image.error_fd, &error, sizeof(error));
  _exit(127);
}

Status check_options(const SpawnOptions& options) {
  if (options.argv.empty()) return make_error(ErrorCode::invalid_argument, "spawn: argv is empty");
  std::set<int> targets;
  for (const auto& [ours, target] : options.descriptors)
    if (target < 0 || target > kTargetMax || !targets.insert(target).second)
      return make_error(ErrorCode::invalid_argument,
                        "spawn: descriptor number {} is out of range or given twice", target);
  return ok_status();
}

Error exec_error(const std::string& program, int error) {
  if (error == ENOENT)
    return make_error(ErrorCode::not_found, "cannot start {}: no such file", program);
  if (error == EACCES || error == ENOEXEC || error == ENOTDIR || error == E2BIG)
    return make_error(ErrorCode::invalid_argument, "cannot start {}: {}", program, strerror(error));
  Error other = errno_error("exec", error);
  other.message = fmt::format("cannot start {}: {}", program, other.message);
  return other;
}

}  // namespace

std::string to_string(const ExitStatus& status) {
  if (!status.signalled) return fmt::format("exit status {}", status.code);
  const char* name = sigabbrev_np(status.code);
  const char* text = sigdescr_np(status.code);
  return fmt::format("killed by SIG{} ({})", name ? name : std::to_string(status.code).c_str(),
                     text ? text : "unknown signal");
}

Result<Process> spawn(const SpawnOptions& options) {
  RETURN_IF_ERROR(check_options(options));
  int highest = kErrorFdNumber;
  for (const auto& [ours, target] : options.descriptors) highest = std::max(highest, target);

  // Copies above every target number, close-on-exec like all else of ours.
  std::vector<UniqueFd> copies;
  ChildImage image;
  for (const auto& [ours, target] : options.descriptors) {
    copies.emplace_back(fcntl(ours, F_DUPFD_CLOEXEC, highest + 1));
    if (!copies.back().valid()) return errno_error("fcntl(F_DUPFD_CLOEXEC)", errno);
    image.descriptors.emplace_back(copies.back().get(), target);
  }
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return errno_error("pipe2", errno);
  const UniqueFd error_read(pipe_fds[0]);
  UniqueFd error_write(pipe_fds[1]);
  UniqueFd error_high(fcntl(error_write.get(), F_DUPFD_CLOEXEC, highest + 1));
  if (!error_high.valid()) return errno_error("fcntl(F_DUPFD_CLOEXEC)", errno);
  error_write.reset();

  const std::vector<std::string> environment = merged_environment(options);
  image.program = options.program.c_str();
  image.argv = pointers(options.argv);
  image.environment = pointers(environment);
  image.parent = getpid();
  image.new_process_group = options.new_process_group;
  image.error_fd = error_high.get();

  // No handler of ours may run in the child before it has been reset.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) run_child(image);
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return errno_error("fork", fork_error);

  error_high.reset();
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return errno_error("pidfd_open", error);
  }
  Process process(pid, std::move(pidfd));
  // Ends with exec (close-on-exec) or with the child's errno.
  int error = 0;
  ssize_t got;
  do {
    got = read(error_read.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == static_cast<ssize_t>(sizeof(error))) return exec_error(options.program, error);
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      status_(std::exchange(other.status_, std::nullopt)) {}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    end();
    pid_ = std::exchange(other.pid_, -1);
    pidfd_ = std::move(other.pidfd_);
    status_ = std::exchange(other.status_, std::nullopt);
  }
  return *this;
}

Process::~Process() { end(); }

void Process::end() noexcept {
  if (pid_ < 0 || status_) return;
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  // A killed process ends, unless the kernel itself is stuck in it: then a zombie stays behind.
  (void)wait(kReapMax);
  pid_ = -1;
}

Status Process::kill(int signal) {
  if (pid_ < 0 || status_) return make_error(ErrorCode::not_found, "the process has ended");
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) != 0)
    return errno == ESRCH ? make_error(ErrorCode::not_found, "the process has ended")
                          : errno_error("pidfd_send_signal", errno);
  return ok_status();
}

Result<ExitStatus> Process::wait(Duration timeout) {
  CHECK_MSG(pid_ >= 0, "wait on a process that was moved from");
  if (status_) return *status_;
  const TimePoint deadline = steady_clock().now() + std::max(timeout, Duration(0));
  for (;;) {
    const int64_t left_ns = (deadline - steady_clock().now()).count();
    const int64_t left_ms = std::clamp<int64_t>((left_ns + 999'999) / 1'000'000, 0, 1 << 30);
    pollfd ready{pidfd_.get(), POLLIN, 0};
    const int n = poll(&ready, 1, static_cast<int>(left_ms));
    if (n > 0) break;
    if (n < 0 && errno != EINTR) return errno_error("poll(pidfd)", errno);
    if (n == 0 && left_ns <= 0)
      return make_error(ErrorCode::deadline_exceeded, "process {} has not ended", pid_);
  }
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED) != 0)
    return errno_error("waitid", errno);
  status_ = ExitStatus{info.si_code != CLD_EXITED, info.si_status};
  return *status_;
}

std::string self_exe() { return "/proc/self/exe"; }

Result<std::pair<UniqueFd, UniqueFd>> make_socketpair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    return errno_error("socketpair", errno);
  return std::pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace chainpump::os
