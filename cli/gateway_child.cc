#include "cli/gateway_child.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cli/gateway_process.h"

namespace chainpump::cli {
namespace {

constexpr ProcessId kGateway(0);
constexpr graph::FailureDetectorLimits kStarting = {.period = std::chrono::seconds(1),
                                                    .hang_max = std::chrono::minutes(1)};
constexpr graph::FailureDetectorLimits kServing = {};
constexpr graph::FailureDetectorLimits kEnding = {.period = std::chrono::seconds(1),
                                                  .hang_max = std::chrono::seconds(10)};

}  // namespace

Result<GatewayChild> GatewayChild::start(const std::vector<std::string>& arguments, int listener) {
  int fds[2];
  // It never waits for us to read.
  if (::pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
    return make_error(ErrorCode::no_room, "pipe: {}", std::strerror(errno));
  UniqueFd reader(fds[0]), writer(fds[1]);
  os::SpawnOptions options;
  options.program = os::self_exe();
  options.argv = {"chainpump", "gateway"};
  options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
  options.descriptors = {{listener, kListenerFd}, {writer.get(), kNewsFd}};
  ASSIGN_OR_RETURN(os::Process process, os::spawn(options));
  return GatewayChild(std::move(process), std::move(reader));
}

GatewayChild::GatewayChild(os::Process process, UniqueFd news)
    : process_(std::move(process)), news_(std::move(news)), detector_(kStarting) {
  detector_.watch(kGateway, steady_clock().now());
}

void GatewayChild::enter(const graph::FailureDetectorLimits& limits, TimePoint now) {
  detector_ = graph::FailureDetector(limits);
  detector_.watch(kGateway, now);
}

bool GatewayChild::read_news(TimePoint now) {
  char words[256];
  const ssize_t got = ::read(news_.get(), words, sizeof words);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    news_.reset();
    enter(kEnding, now);
    return false;
  }
  if (!std::exchange(is_serving_, true)) enter(kServing, now);
  detector_.on_answer(kGateway, ++num_heard_, now);
  return std::find(words, words + got, kReadyNews) != words + got;
}

std::optional<Duration> GatewayChild::hangs_for(TimePoint now) {
  const graph::FailureDetector::Looked looked = detector_.on_time(now);
  if (looked.hung.empty()) return std::nullopt;
  return looked.hung.front().silent_for;
}

}  // namespace chainpump::cli
