#include "tests/sim/sim_process.h"

#include <algorithm>

namespace chainpump::sim {

using graph::Deployment;
using graph::LaneId;

SimProcess::SimProcess(SimWorld& world, const Scenario& scenario, LinkHub& hub, ProcessId id,
                       uint32_t run)
    : world_(world),
      scenario_(scenario),
      id_(id),
      run_(run),
      host_{.world = world,
            .scenario = scenario,
            .hub = hub,
            .name = fmt::format("process {}.{}", id, run),
            .slowness = world.random.uniform(0.5, 1.5),
            .table = models::SequenceTable(limits_of(scenario)),
            .awake = [this](std::function<void()> what) { when_awake(std::move(what)); },
            .wake = [this] { world_.after(Duration(0), [this] { wake(); }); },
            .on_broken =
                [this] {
                  for (const Reply<Ok>& reply : std::exchange(watchers_, {}))
                    reply(make_error(ErrorCode::disconnected, "a link has ended"));
                }} {}

// -------------------------------------------------------------------------------- its life

void SimProcess::when_awake(std::function<void()> what) {
  if (!alive_) return;
  if (stopped_) return deferred_.push_back(std::move(what));
  what();
}

void SimProcess::die() {
  if (!alive_) return;
  world_.say("{} dies", host_.name);
  alive_ = false;
  deferred_.clear();
  watchers_.clear();
  for (const auto& stage : stages_) stage->drop_links();
  for (const auto& [stage, client] : clients_) client->lose();
  break_calls();
}

void SimProcess::stop(Duration lasts, bool is_stuck) {
  if (!alive_ || stopped_) return;
  world_.say("{} {} for {:.0f} ms", host_.name, is_stuck ? "is stuck" : "stops", to_ms(lasts));
  stopped_ = true;
  stuck_ = is_stuck;
  world_.disturb_for(lasts);
  world_.after(lasts, [this] {
    if (!alive_) return;
    world_.say("{} goes on", host_.name);
    stopped_ = false;
    for (size_t i = 0; i < deferred_.size() && alive_; ++i) std::exchange(deferred_[i], nullptr)();
    deferred_.clear();
    wake();
  });
}

void SimProcess::wake() {
  if (!alive_ || stopped_) return;
  for (size_t i = 0; i < stages_.size() && !host_.busy && world_.wrong.empty(); ++i)
    stages_[(turn_ + i) % stages_.size()]->begin_step();
  ++turn_;
}

// -------------------------------------------------------------------------------- what it is asked

/// Again: the same.
void SimProcess::load(RankId place, Reply<Deployment::Loaded> reply) {
  place_ = place;
  if (stages_.empty())
    for (const LaneId lane : lanes_of(scenario_.plan, place))
      stages_.push_back(std::make_unique<SimStage>(
          host_, lane, graph::place_of(scenario_.plan, place).stage.value));
  const Duration takes = loaded_ ? Duration(0) : world_.random.up_to(scenario_.load_delay);
  world_.after(takes, [this, reply = std::move(reply)] {
    if (!loaded_) last_beat_ = world_.now();
    when_awake([this, reply] {
      loaded_ = true;
      Deployment::Loaded loaded{.process = id_, .numerics_id = "same", .lanes = {}};
      for (const auto& stage : stages_) loaded.lanes.emplace_back(stage->lane(), stage->seen());
      reply(std::move(loaded));
    });
  });
}

void SimProcess::watch(Reply<Ok> reply) {
  const bool broken = std::any_of(stages_.begin(), stages_.end(),
                                  [](const auto& stage) { return stage->is_broken(); });
  if (broken) return reply(make_error(ErrorCode::disconnected, "a link has ended"));
  watchers_.push_back(std::move(reply));
}

bool SimProcess::all_cut() const {
  return std::all_of(stages_.begin(), stages_.end(), [](const auto& s) { return s->is_cut(); });
}

void SimProcess::take_in(Reply<Ok> reply) {
  if (!loaded_ || !all_cut() || host_.table.num_sequences() > 0)
    return reply(make_error(ErrorCode::invalid_argument, "holds something of its own"));
  takes_in_ = true;
  reply(Ok{});
}

void SimProcess::copy(SimProcess& to, Reply<Ok> reply) {
  copies_to_ = &to;
  world_.after(world_.random.up_to(std::chrono::milliseconds(20)), [this, &to, reply] {
    when_awake([&to, reply] {
      if (to.is_alive() && to.takes_in_) return reply(Ok{});
      reply(make_error(ErrorCode::disconnected, "nobody takes it in"));
    });
  });
}

void SimProcess::finish_copy(Reply<Ok> reply) {
  if (copies_to_ == nullptr || !all_cut())
    return reply(make_error(ErrorCode::invalid_argument, "copies nothing, or is at work"));
  SimProcess* const to = copies_to_;
  world_.after(world_.random.up_to(std::chrono::milliseconds(5)), [this, to, reply] {
    when_awake([this, to, reply] {
      if (!to->is_alive()) return reply(make_error(ErrorCode::disconnected, "nobody is there"));
      to->when_awake([this, to, reply] {
        const Status taken = alive_ && all_cut()
                                 ? to->take_over(*this)
                                 : Status(make_error(ErrorCode::disconnected, "it broke off"));
        taken.ok() ? reply(Ok{}) : reply(taken.error());
      });
    });
  });
}

Status SimProcess::take_over(const SimProcess& from) {
  if (!std::exchange(takes_in_, false) || place_ != from.place_)
    return make_error(ErrorCode::disconnected, "it is not awaited");
  std::vector<graph::StageHoldings::Held> held;
  for (const SequenceId id : from.host_.table.ids())
    held.push_back(from.host_.table.held_as_told(id));
  RETURN_IF_ERROR(host_.table.take_over(held));
  for (size_t i = 0; i < stages_.size(); ++i) stages_[i]->take_over(*from.stages_[i]);
  world_.say("{} has all that {} held", host_.name, from.host_.name);
  return ok_status();
}

SimStage* SimProcess::stage(LaneId lane) {
  for (const auto& stage : stages_)
    if (stage->lane() == lane) return stage.get();
  return nullptr;
}

void SimProcess::attach(LaneId lane, const std::shared_ptr<ResultStream>& client, Reply<Ok> reply) {
  SimStage* const own = stage(lane);
  if (own == nullptr || !own->has_door())
    return reply(make_error(ErrorCode::invalid_argument, "has no door to lane {}", lane));
  own->front()->attach(client);
  clients_.emplace_back(own, client);
  reply(Ok{});
}

// -------------------------------------------------------------------------------- checks

void SimProcess::check_table() const {
  if (!alive_) return;
  size_t num_sequences = 0;
  int32_t num_blocks = 0;
  for (const auto& stage : stages_) {
    num_sequences += stage->memory().num_sequences();
    num_blocks += stage->memory().num_blocks();
  }
  if (host_.table.num_sequences() != num_sequences || host_.table.num_blocks_held() != num_blocks)
    world_.fail("{}: its table has {} sequences in {} blocks, its lanes {} in {}", host_.name,
                host_.table.num_sequences(), host_.table.num_blocks_held(), num_sequences,
                num_blocks);
  if (stopped_) return;
  for (const auto& stage : stages_)
    if (stage->front() != nullptr) stage->front()->check_books();
}

bool SimProcess::is_idle() const {
  return !host_.busy && std::all_of(stages_.begin(), stages_.end(), [](const auto& stage) {
    const bool was_cut = stage->is_cut() && stage->seen().linked;  // who stands by has no links
    return !was_cut && (stage->front() == nullptr || stage->front()->is_idle());
  });
}

void SimProcess::check_idle() const {
  if (host_.busy) world_.fail("{} is still at work", host_.name);
  for (const auto& stage : stages_) stage->check_idle();
}

}  // namespace chainpump::sim
