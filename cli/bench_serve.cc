#include "cli/bench_serve.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "actors/os/signals.h"
#include "base/version.h"
#include "cli/exit_status.h"
#include "cli/load_run.h"
#include "cli/run_report.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kReportMax = std::chrono::seconds(5);

/// A load that the service would refuse for its length measures nothing.
Status check_lengths(const std::vector<Arrival>& arrivals, const graph::Plan& plan) {
  for (const Arrival& arrival : arrivals)
    if (arrival.prompt_tokens + arrival.output_tokens > plan.context_tokens)
      return make_error(ErrorCode::invalid_argument,
                        "--mix: {} prompt tokens and {} new ones are more than this deployment "
                        "serves, {} (give --context)",
                        arrival.prompt_tokens, arrival.output_tokens, plan.context_tokens);
  return ok_status();
}

Json report(const BenchServeOptions& options, const ServeFigures& figures,
            const actors::RuntimeReport& stages) {
  Json json = {{"load",
                {{"requests_per_second", options.requests_per_second},
                 {"requests", options.num_requests},
                 {"mix", options.mix},
                 {"seed", options.seed}}}};
  json.update(figures_json(figures, options.level));
  json["version"] = fmt::format("{}+{}", release(), commit());
  json["system_fingerprint"] = stages.numerics_id;
  json["stages"] = stages_json(stages);
  json["links"] = links_json(stages);
  return json;
}

Status bench(const BenchServeOptions& options, UnderWay& under_way, std::atomic<bool>& is_running) {
  ASSIGN_OR_RETURN(const std::vector<LengthClass> mix, parse_mix(options.mix));
  const std::vector<Arrival> arrivals =
      make_arrivals({.requests_per_second = options.requests_per_second,
                     .num_requests = options.num_requests,
                     .mix = mix,
                     .seed = options.seed});
  ASSIGN_OR_RETURN(ServicePool services, ServicePool::open(options.deploy));
  gateway::Service& service = services.first();
  RETURN_IF_ERROR(check_lengths(arrivals, service.deployment().plan));
  RETURN_IF_ERROR(wait_ready(service));
  ASSIGN_OR_RETURN(const gateway::StatusReport before, service.status(kReportMax));
  is_running = true;
  LoadRun run(arrivals, options.seed, services, under_way);
  ASSIGN_OR_RETURN(const std::vector<ServedRequest> served, run.run());
  ASSIGN_OR_RETURN(const gateway::StatusReport after, service.status(kReportMax));
  const ServeFigures figures = figures_of(served, options.level);
  const actors::RuntimeReport stages = since(before.stages, after.stages);
  const std::string text =
      options.json ? report(options, figures, stages).dump() + "\n"
                   : figures_table(figures, options.level) + "\n" + stages_table(stages);
  std::fputs(text.c_str(), stdout);
  if (std::fflush(stdout) != 0)
    return make_error(ErrorCode::internal, "standard output cannot be written");
  return ok_status();
}

}  // namespace

int run_bench_serve(const BenchServeOptions& options) {
  UnderWay under_way;
  std::atomic<int> signal_seen{0};
  std::atomic<bool> is_running{false};
  const auto listening = os::TerminationSignals::create([&](int signal) {
    if (signal_seen.exchange(signal) != 0 || !is_running) ::_exit(128 + signal);
    under_way.stop(make_error(ErrorCode::cancelled, "interrupted"));
  });
  const Status done =
      listening.ok() ? bench(options, under_way, is_running) : Status(listening.error());
  if (signal_seen != 0) return 128 + signal_seen;
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
