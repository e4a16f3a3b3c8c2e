#include "actors/backend.h"
#include "actors/callback_scope.h"
#include "actors/deployment_actors.h"
#include "actors/lanes.h"
#include "actors/os/process.h"

namespace chainpump::actors {
namespace {

constexpr PlanEpoch kStart{1};

std::shared_ptr<RankPort> first_of(const graph::Plan& plan, graph::LaneId lane,
                                   const std::vector<std::shared_ptr<RankPort>>& ports) {
  return ports[rank_at(plan, lane, StageIndex(0)).value];
}

void serve(const graph::Plan& plan, const std::shared_ptr<Outcome>& outcome,
           std::vector<std::shared_ptr<RankPort>> ports, std::string numerics_id) {
  Result<std::shared_ptr<Lanes>> lanes = Lanes::create(plan, outcome);
  if (!lanes.ok()) return outcome->set_failed(lanes.error());
  for (int32_t i = 0; i < num_lanes(plan); ++i) {
    const graph::LaneId lane(static_cast<uint8_t>(i));
    (*lanes)->reopen(lane, first_of(plan, lane, ports), kStart);
  }
  outcome->set_serving(*std::move(lanes), std::move(ports), std::move(numerics_id));
}

DeploymentObserver observer(const graph::Plan& plan, const RuntimeOptions& options,
                            const std::shared_ptr<Outcome>& outcome) {
  return {.on_progress =
              [on_progress = options.on_progress](RankId rank, int64_t done, int64_t total) {
                const CallbackScope scope;
                if (on_progress) on_progress(rank, done, total);
              },
          .on_serving =
              [plan, outcome](auto ports, std::string numerics_id, const auto&) {
                serve(plan, outcome, std::move(ports), std::move(numerics_id));
              },
          .on_repaired =
              [plan, outcome](auto ports, graph::LaneId lane, LaneFirst at_first) {
                const std::shared_ptr<RankPort> first = first_of(plan, lane, ports);
                outcome->set_ports(std::move(ports));
                if (const auto lanes = outcome->lanes()) lanes->reopen(lane, first, at_first.since);
              },
          .on_lanes = [outcome](const auto& news) { outcome->on_lanes(news); },
          .on_notice =
              [on_notice = options.on_notice](const std::string& what) {
                const CallbackScope scope;
                if (on_notice) on_notice(what);
              },
          .on_failed = [outcome](Error error) { outcome->set_failed(std::move(error)); },
          .on_stopped = [outcome] { outcome->set_stopped(); }};
}

DeploymentActors::MakeHostIn host_maker(const RuntimeOptions& options, std::vector<int> busy) {
  const std::string program = options.rank_program.empty() ? os::self_exe() : options.rank_program;
  return [program, busy = std::move(busy), in_process = options.in_process](
             caf::actor_system& system, RankHost::OnExit on_exit) {
    if (!in_process) return make_process_host(program, std::move(on_exit), busy);
    return Result<std::unique_ptr<RankHost>>(make_local_host(system, std::move(on_exit)));
  };
}

class LocalBackend final : public Backend {
 public:
  LocalBackend(std::shared_ptr<Outcome> outcome, std::unique_ptr<DeploymentActors> actors)
      : outcome_(std::move(outcome)), actors_(std::move(actors)) {}

  void stats(Duration timeout, rpc::Reply<std::vector<rpc::RankStats>> reply) override {
    const auto ports = outcome_->ports();
    if (ports.empty()) return reply(outcome_->why_not_serving());
    gather_stats(ports, timeout, std::move(reply));
  }
  void trace(RankId rank, uint64_t since, Duration timeout, rpc::Reply<StepEvents> reply) override {
    const auto ports = outcome_->ports();
    if (ports.empty()) return reply(outcome_->why_not_serving());
    if (rank.value >= ports.size())
      return reply(make_error(ErrorCode::invalid_argument, "there is no rank {}", rank));
    auto shared = std::make_shared<rpc::Reply<StepEvents>>(std::move(reply));
    ports[rank.value]->trace(since, timeout,
                             [shared](Result<StepEvents> events) { (*shared)(std::move(events)); });
  }
  void request_stop() override { actors_->request_stop(); }
  void end() override { actors_->end(); }

 private:
  const std::shared_ptr<Outcome> outcome_;
  const std::unique_ptr<DeploymentActors> actors_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_local_backend(const graph::Plan& plan, RuntimeOptions options,
                                                    std::shared_ptr<Outcome> outcome) {
  ASSIGN_OR_RETURN(
      auto actors,
      // A token comes when the first stage begins the next step: taking it must not delay that.
      DeploymentActors::create({.plan = plan,
                                .isa = options.isa,
                                .spin_between_ops = options.spin_between_ops,
                                .cache_folder = options.cache_folder,
                                .finds_hangs = !options.in_process},
                               host_maker(options, first_cores(plan)),
                               observer(plan, options, outcome)));
  return Result<std::unique_ptr<Backend>>(
      std::make_unique<LocalBackend>(std::move(outcome), std::move(actors)));
}

}  // namespace chainpump::actors
