#include "cli/top.h"

#include <unistd.h>

#include <cstdio>
#include <thread>

#include "cli/exit_status.h"
#include "cli/status.h"
#include "cli/top_view.h"

namespace chainpump::cli {
namespace {

constexpr Duration kAnswerMax = std::chrono::seconds(5);

struct Look {
  TimePoint at;
  gateway::StatusReport status;
};

Result<Look> look_at(gateway::Service& service) {
  ASSIGN_OR_RETURN(gateway::StatusReport status, service.status(kAnswerMax));
  return Look{.at = steady_clock().now(), .status = std::move(status)};
}

Status show(const TopOptions& options) {
  ASSIGN_OR_RETURN(const auto service, find_service(options.name));
  const bool on_terminal = ::isatty(STDOUT_FILENO) != 0;
  const int32_t num_views = options.num_views == 0 && !on_terminal ? 1 : options.num_views;
  const auto interval = std::chrono::duration<double>(options.interval_s);
  ASSIGN_OR_RETURN(Look before, look_at(*service));
  for (int32_t i = 0; num_views == 0 || i < num_views; ++i) {
    std::this_thread::sleep_for(interval);
    ASSIGN_OR_RETURN(Look now, look_at(*service));
    const std::string view =
        top_view(service->deployment(), before.status, now.status, now.at - before.at);
    // From the top of a screen that is cleared.
    if (on_terminal) std::fputs("\033[H\033[J", stdout);
    if (!on_terminal && i > 0) std::fputc('\n', stdout);
    std::fputs(view.c_str(), stdout);
    if (std::fflush(stdout) != 0)
      return make_error(ErrorCode::internal, "standard output cannot be written");
    before = std::move(now);
  }
  return ok_status();
}

}  // namespace

int run_top(const TopOptions& options) {
  const Status shown = show(options);
  if (shown.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", shown.error().message.c_str());
  return exit_status(shown.error().code);
}

}  // namespace chainpump::cli
