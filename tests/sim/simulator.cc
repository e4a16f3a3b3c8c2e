#include "tests/sim/simulator.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t kEventsMax = 2'000'000;
constexpr double kUnfairnessMax = 0.05;

class Cluster {
 public:
  explicit Cluster(const SimOptions& options)
      : world_(options.seed, options.trace, options.plant),
        scenario_(Scenario::draw(world_.random)) {
    world_.trace.line(
        world_.events.now(), "{} lanes of {} stages{}, {} blocks each, {} credits, {} requests{}",
        scenario_.num_lanes, scenario_.num_stages,
        scenario_.last_rank_shared ? ", the last one shared" : "", scenario_.kv_blocks_per_lane,
        scenario_.credits, scenario_.num_requests, scenario_.saturated ? ", saturated" : "");
    make_lanes();
    clients_ = std::make_unique<SimClients>(world_, scenario_, lanes_);
  }

  SimReport run() {
    for (size_t lane = 0; lane < lanes_.size(); ++lane) start(lane);
    clients_->start();
    for (int i = 0; i < scenario_.num_closes; ++i)
      world_.events.after(world_.random.up_to(scenario_.arrivals + 20ms), [this] { close(); });
    for (int i = 0; i < scenario_.num_deaths; ++i)
      world_.events.after(world_.random.up_to(scenario_.arrivals + 20ms), [this] { die(); });
    SimReport report;
    while (world_.wrong.empty() && world_.events.run_next()) {
      for (const auto& lane : lanes_) lane->check_books();
      if (++report.num_events == kEventsMax) world_.fail("it does not end");
    }
    if (world_.wrong.empty()) check_end(report);
    report.wrong = world_.wrong;
    report.trace_hash = world_.trace.hash();
    report.saturated = scenario_.saturated;
    report.clients = clients_->counts();
    report.deaths = num_deaths_;
    for (const auto& lane : lanes_) {
      const graph::SequencerStats totals = lane->totals();
      report.tokens_generated += totals.tokens_generated;
      report.prompt_tokens_hit += totals.prompt_tokens_hit;
      report.preemptions += totals.preemptions;
      report.positions_rebuilt += totals.positions_rebuilt;
    }
    return report;
  }

 private:
  void make_lanes() {
    for (int lane = 0; lane < scenario_.num_lanes; ++lane) {
      std::vector<SimRank*> ranks;
      for (int stage = 0; stage < scenario_.num_stages; ++stage) {
        const bool shared =
            lane > 0 && scenario_.last_rank_shared && stage + 1 == scenario_.num_stages;
        if (!shared)
          ranks_.push_back(
              std::make_unique<SimRank>(world_, scenario_, fmt::format("rank {}.{}", lane, stage)));
        const size_t of_first = static_cast<size_t>(scenario_.num_stages) - 1;
        ranks.push_back(shared ? ranks_[of_first].get() : ranks_.back().get());
      }
      lanes_.push_back(std::make_unique<SimLane>(
          world_, scenario_, scenario_.lanes[static_cast<size_t>(lane)], std::move(ranks),
          [this](const graph::Deliveries& out) { clients_->take(out); }));
    }
  }

  void start(size_t lane) {
    lanes_[lane]->start();
    clients_->lane_started(lane);
  }

  /// Some link of some lane delivers nothing any more; a while later everybody knows, and the lane
  /// ends; a while later it is back.
  void close() {
    const auto lane = static_cast<size_t>(world_.random.pick(scenario_.num_lanes));
    if (!lanes_[lane]->serving()) return;
    lanes_[lane]->close_link(static_cast<size_t>(world_.random.pick(scenario_.num_stages)));
    const uint32_t incarnation = lanes_[lane]->incarnation();
    world_.events.after(world_.random.up_to(2ms), [this, lane, incarnation] {
      if (!lanes_[lane]->serving() || lanes_[lane]->incarnation() != incarnation) return;
      lanes_[lane]->end();
      clients_->lane_ended(lane);
      world_.events.after(world_.random.up_to(10ms), [this, lane] { start(lane); });
    });
  }

  /// Of any rank, now and then of two at once. A lane whose sequencer is there ends as by a close;
  /// others are repaired.
  void die() {
    const int num_dead = world_.random.chance(4) ? 2 : 1;
    for (int i = 0; i < num_dead; ++i) {
      SimRank& rank =
          *ranks_[static_cast<size_t>(world_.random.pick(static_cast<int>(ranks_.size())))];
      const bool sequences = std::any_of(lanes_.begin(), lanes_.end(), [&](const auto& lane) {
        return lane->sequenced_at(&rank);
      });
      if (sequences) {
        if (num_dead == 1) close();
        continue;
      }
      world_.trace.line(world_.events.now(), "a rank dies");
      ++num_deaths_;
      const Duration restart = 1us + world_.random.up_to(5ms);
      for (const auto& lane : lanes_)
        if (lane->serving() && lane->uses(&rank)) lane->lose(&rank, restart);
      rank.die();
    }
  }

  void check_end(SimReport& report) {
    clients_->check_end();
    for (const auto& lane : lanes_) lane->check_idle();
    for (const auto& rank : ranks_) rank->check_empty();
    if (!scenario_.saturated) return;
    const auto& served = lanes_[0]->served();
    const auto [least, most] = std::minmax_element(served.begin(), served.end());
    report.unfairness = *least > 0 ? *most / *least - 1 : 1e9;
    if (report.unfairness > kUnfairnessMax)
      world_.fail("tenants that all waited got {:.0f}, {:.0f} and {:.0f} tokens over their weights",
                  served[0], served[1], served[2]);
  }

  SimWorld world_;
  Scenario scenario_;
  std::vector<std::unique_ptr<SimRank>> ranks_;
  std::vector<std::unique_ptr<SimLane>> lanes_;
  std::unique_ptr<SimClients> clients_;
  int num_deaths_ = 0;
};

}  // namespace

SimReport simulate(const SimOptions& options) { return Cluster(options).run(); }

}  // namespace chainpump::sim
