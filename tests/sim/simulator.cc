#include "tests/sim/simulator.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "tests/sim/faults.h"

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;
using graph::LaneId;

constexpr uint64_t kEventsMax = 5'000'000;
constexpr double kUnfairnessMax = 0.05;

class Cluster {
 public:
  explicit Cluster(const SimOptions& options)
      : world_(options.seed, options.trace, options.plant),
        scenario_(Scenario::draw(world_.random)),
        hub_(world_, scenario_),
        agent_(world_, scenario_, hub_),
        store_(world_),
        check_(world_, scenario_, agent_),
        gateway_(world_, scenario_, agent_),
        clients_(world_, scenario_, gateway_),
        faults_(world_, scenario_,
                {.agent = agent_,
                 .store = store_,
                 .hub = hub_,
                 .check = check_,
                 .end_coordinator = [this](Duration lasts) { end_coordinator(lasts); },
                 .end_gateway = [this](Duration lasts) { end_gateway(lasts); },
                 .move_rank = [this](RankId place) { coordinator().move(place); },
                 .change_plan = [this] { coordinator().change(); }}) {
    world_.touch = [this](ProcessId id) { check_.touch(id); };
    world_.say("{} lanes of {} stages, {} processes, {} blocks each, {} credits, {} requests{}",
               scenario_.num_lanes(), scenario_.num_stages(), num_processes(scenario_.plan),
               scenario_.kv_blocks_per_lane, scenario_.credits, scenario_.num_requests,
               scenario_.saturated ? ", saturated" : "");
  }

  SimReport run() {
    begin_coordinator();
    SimReport report;
    while (world_.wrong.empty() && !unfinished().empty() && world_.events.run_next()) {
      check_always();
      if (!started_ && coordinator().has_announced()) start_load();
      faults_.on_event();
      if (clients_.all_ended()) faults_.stop();
      if (++report.num_events == kEventsMax) world_.fail("it does not end: {}", unfinished());
    }
    if (world_.wrong.empty()) check_end(report);
    if (world_.wrong.empty()) stop(report);
    fill(report);
    return report;
  }

 private:
  SimCoordinator& coordinator() { return *coordinators_.back(); }

  void begin_coordinator() {
    const auto number = static_cast<int>(coordinators_.size());
    coordinators_.push_back(std::make_unique<SimCoordinator>(
        world_, scenario_, agent_, store_, check_,
        SimCoordinator::Observer{
            .on_first = [this](LaneId lane, LaneFirst first) { gateway_.on_first(lane, first); },
            .on_failed =
                [this](const Error& why) {
                  clients_.deployment_failed();
                  gateway_.on_failed(why);
                }},
        number));
    coordinator().begin();
  }

  void start_load() {
    started_ = true;
    clients_.start();
    faults_.start();
  }

  void end_coordinator(Duration lasts) {
    if (!coordinator().is_alive() || coordinator().has_failed()) return;
    coordinator().die();
    world_.disturb_for(lasts + 1ms);
    world_.after(lasts + 1ms, [this] { begin_coordinator(); });
  }

  void end_gateway(Duration lasts) {
    if (!gateway_.is_alive()) return;
    gateway_.die();
    clients_.gateway_died();
    world_.disturb_for(lasts + 5ms);
    world_.after(lasts + 5ms, [this] {
      gateway_.start();
      if (coordinator().is_alive()) coordinator().tell_firsts();
      clients_.gateway_back();
    });
  }

  /// What the run still waits for; empty if it is over.
  std::string unfinished() {
    if (!started_) return "the deployment does not serve";
    if (!clients_.all_ended()) return "a request has not ended";
    if (!gateway_.is_alive() || !coordinator().is_alive() || world_.now() < world_.disturbed_until)
      return "a fault is not over";
    if (coordinator().has_failed()) return coordinator().has_stopped() ? "" : "it does not stop";
    if (const std::string what = coordinator().unfinished(); !what.empty()) return what;
    for (const SimProcess* const process : agent_.processes())
      if (process != nullptr && process->is_alive() && !process->is_idle())
        return process->name() + " is not idle";
    return hub_.at_rest() ? "" : "credits are missing";
  }

  void check_always() {
    hub_.check_books();
    for (const SimProcess* const process : agent_.processes())
      if (process != nullptr) process->check_table();
    if (!started_ || world_.faulty || clients_.all_ended()) return;
    if (world_.now() - world_.disturbed_until > kLiveness)
      world_.fail("a request has not ended {} s after the last fault", to_seconds(kLiveness));
  }

  void check_end(SimReport& report) {
    clients_.check_end();
    if (coordinator().has_failed()) return;
    for (const SimProcess* const process : agent_.processes())
      if (process != nullptr && process->is_alive()) process->check_idle();
    if (!scenario_.saturated) return;
    const auto& served = agent_.processes()[0]->stage(LaneId(0))->front()->served();
    const auto [least, most] = std::minmax_element(served.begin(), served.end());
    report.unfairness = *least > 0 ? *most / *least - 1 : 1e9;
    if (report.unfairness > kUnfairnessMax)
      world_.fail("tenants that all waited got {:.0f}, {:.0f} and {:.0f} tokens over their weights",
                  served[0], served[1], served[2]);
  }

  void stop(SimReport& report) {
    if (!coordinator().has_failed()) coordinator().stop();
    while (world_.wrong.empty() && !coordinator().has_stopped() && world_.events.run_next())
      ++report.num_events;
    for (const SimProcess* const process : agent_.processes())
      if (process != nullptr && process->is_alive())
        world_.fail("{} has not left", process->name());
  }

  void fill(SimReport& report) {
    report.wrong = world_.wrong;
    report.trace_hash = world_.trace.hash();
    report.saturated = scenario_.saturated;
    report.clients = clients_.counts();
    report.faults = faults_.num_injected();
    report.repairs = check_.num_repairs();
    report.moves = check_.num_moves();
    report.changes = check_.num_changes();
    report.coordinators = static_cast<int>(coordinators_.size());
    report.calls_lost = world_.calls_lost;
    report.stale_refused = world_.stale_refused;
    if (clients_.last_end() > world_.disturbed_until && !scenario_.faults.empty())
      report.longest_ending = clients_.last_end() - world_.disturbed_until;
    for (const graph::SequencerStats& stats : agent_.sequencers()) {
      report.tokens_generated += stats.tokens_generated;
      report.prompt_tokens_hit += stats.prompt_tokens_hit;
      report.preemptions += stats.preemptions;
      report.positions_rebuilt += stats.positions_rebuilt;
    }
  }

  SimWorld world_;
  Scenario scenario_;
  LinkHub hub_;
  SimAgent agent_;
  SimStore store_;
  DeploymentCheck check_;
  SimGateway gateway_;
  SimClients clients_;
  Faults faults_;
  std::vector<std::unique_ptr<SimCoordinator>> coordinators_;  // the dead, too
  bool started_ = false;
};

}  // namespace

SimReport simulate(const SimOptions& options) { return Cluster(options).run(); }

}  // namespace chainpump::sim
