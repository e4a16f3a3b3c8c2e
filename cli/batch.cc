#include "cli/batch.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "actors/os/signals.h"
#include "cli/batch_run.h"
#include "cli/exit_status.h"
#include "gateway/tenants.h"

namespace chainpump::cli {
namespace {

Status batch(const BatchOptions& options, UnderWay& under_way, std::atomic<bool>& is_running) {
  if (const auto tenant = gateway::Tenants().find(options.terms.tenant); !tenant.ok())
    return tenant.error();
  ASSIGN_OR_RETURN(const BatchInput input, BatchInput::open(options.input));
  ASSIGN_OR_RETURN(BatchOutput output, BatchOutput::open(options.output, input));
  if (output.num_done() == input.lines().size()) {
    std::fprintf(stderr, "batch: all %zu lines were done before\n", input.lines().size());
    return ok_status();
  }
  ASSIGN_OR_RETURN(ServicePool services, ServicePool::open(options.deploy));
  RETURN_IF_ERROR(wait_ready(services.first()));
  BatchRun run(input, output, services, options.terms, under_way);
  is_running = true;
  const Status done = run.run();
  std::fprintf(stderr, "batch: %s\n", summary_text(run.counts(), run.elapsed()).c_str());
  if (!done.ok()) std::fprintf(stderr, "batch: the same command goes on from here\n");
  return done;
}

}  // namespace

int run_batch(const BatchOptions& options) {
  UnderWay under_way;
  std::atomic<int> signal_seen{0};
  std::atomic<bool> is_running{false};
  // Before it runs there is nothing to finish, and the ranks end with their parent.
  const auto listening = os::TerminationSignals::create([&](int signal) {
    if (signal_seen.exchange(signal) != 0 || !is_running) ::_exit(128 + signal);
    under_way.stop(make_error(ErrorCode::cancelled, "interrupted"));
  });
  const Status done =
      listening.ok() ? batch(options, under_way, is_running) : Status(listening.error());
  if (signal_seen != 0) return 128 + signal_seen;
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
