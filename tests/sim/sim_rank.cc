#include "tests/sim/sim_rank.h"

#include <algorithm>
#include <chrono>

namespace chainpump::sim {
namespace {

/// What all lanes of a scenario together may hold at a rank.
graph::MicrobatchLimits limits_of(const Scenario& scenario) {
  graph::MicrobatchLimits limits;
  for (const graph::SequencerOptions& lane : scenario.lanes) {
    limits.max_tokens = std::max(limits.max_tokens, lane.max_microbatch_tokens);
    limits.max_sequences += lane.max_sequences;
    limits.num_kv_blocks += scenario.kv_blocks_per_lane;
  }
  limits.context_tokens = kContext;
  limits.vocabulary_size = kVocabulary;
  return limits;
}

float row_of(TokenId token, size_t position) {
  return static_cast<float>(static_cast<size_t>(token) + position * kVocabulary);
}

}  // namespace

StagePort::StagePort(const graph::SequencerOptions& lane_options, int stage_index,
                     int32_t log_blocks)
    : options(lane_options),
      stage(stage_index),
      last(stage_index + 1 == static_cast<int>(lane_options.stages.size())),
      chain({.block_tokens = kBlockTokens,
             .first_block = lane_options.first_kv_block,
             .num_blocks = lane_options.stages[static_cast<size_t>(stage_index)].num_kv_blocks,
             .max_sequences = lane_options.max_sequences,
             .max_tokens = lane_options.max_microbatch_tokens,
             .vocabulary_size = kVocabulary}),
      log({.num_blocks = lane_options.first_kv_block +
                         lane_options.stages[static_cast<size_t>(stage_index)].num_kv_blocks,
           .block_tokens = kBlockTokens,
           .row_floats = 1,
           .max_bytes = int64_t{log_blocks} * kBlockTokens * int64_t{sizeof(float)}}) {}

SimRank::SimRank(SimWorld& world, const Scenario& scenario, std::string name)
    : world_(world),
      scenario_(scenario),
      name_(std::move(name)),
      slowness_(world.random.uniform(0.5, 1.5)),
      table_(limits_of(scenario)) {}

void SimRank::add(std::shared_ptr<StagePort> port) { ports_.push_back(std::move(port)); }

void SimRank::remove(const std::shared_ptr<StagePort>& port) {
  port->ended = true;
  graph::Microbatch forget;
  forget.released.assign(port->held.begin(), port->held.end());
  if (const Status fits = table_.check(forget); !fits.ok())
    return world_.fail("{}: {}", name_, fits.error().message);
  table_.apply(forget);
  ports_.erase(std::find(ports_.begin(), ports_.end(), port));
}

void SimRank::die() {
  for (const auto& port : ports_) port->ended = true;
  ports_.clear();
  table_ = models::SequenceTable(limits_of(scenario_));
  busy_ = false;
  ++incarnation_;
}

graph::StageHoldings SimRank::holdings(const StagePort& port) const {
  graph::StageHoldings holdings{.stage = StageIndex(port.stage), .held = {}, .logged = {}};
  for (const SequenceId id : port.held) holdings.held.push_back({id, table_.num_tokens(id)});
  holdings.logged = port.log.all();
  return holdings;
}

int32_t SimRank::num_held(const StagePort& port, std::span<const SequenceId> sequences,
                          KvBlockId block) const {
  int32_t most = 0;
  for (const SequenceId id : sequences) {
    if (!port.held.contains(id)) continue;
    const auto table = table_.block_table(id);
    const auto at = std::find(table.begin(), table.end(), block);
    if (at == table.end()) continue;
    const auto begin = static_cast<int32_t>(at - table.begin()) * kBlockTokens;
    most = std::max(most, std::clamp(table_.num_tokens(id) - begin, 0, kBlockTokens));
  }
  return most;
}

void SimRank::on_frame(StagePort& port, SimFrame frame) {
  if (world_.plant == Plant::block_freed_in_flight) {
    graph::Microbatch microbatch = *graph::decode_microbatch(frame.bytes, limits_of(scenario_));
    graph::Microbatch early;
    early.released = std::exchange(microbatch.released, {});
    frame.bytes.clear();
    graph::encode(microbatch, frame.bytes);
    run(port, frame, early);
  }
  port.queue.push_back(std::move(frame));
  wake();
}

void SimRank::wake() {
  for (size_t i = 0; i < ports_.size() && !busy_ && world_.wrong.empty(); ++i)
    begin(ports_[(turn_ + i) % ports_.size()]);
  ++turn_;
}

bool SimRank::begin(const std::shared_ptr<StagePort>& port) {
  if (!port->out->may_acquire()) return false;
  SimFrame frame;
  if (port->stage == 0) {
    std::optional<SimFrame> formed = port->form();
    if (!formed) return false;
    frame = std::move(*formed);
  } else {
    if (port->queue.empty()) return false;
    frame = std::move(port->queue.front());
    port->queue.pop_front();
  }
  port->out->acquire();
  busy_ = true;
  Result<graph::Microbatch> microbatch =
      graph::decode_microbatch(frame.bytes, limits_of(scenario_));
  if (!microbatch.ok()) {
    world_.fail("{}: {}", name_, microbatch.error().message);
    return true;
  }
  if (microbatch->id.value != port->last_run + 1) {
    world_.fail("{}: microbatch {} after {}", name_, microbatch->id, port->last_run);
    return true;
  }
  port->last_run = microbatch->id.value;
  plant_bug(*port, *microbatch);
  std::optional<graph::StepResult> result = run(*port, frame, *microbatch);
  if (!result) return true;
  check_accounts(*port, frame);
  const Duration spent = cost_of(*microbatch);
  world_.trace.line(world_.events.now(), "{}: lane {} microbatch {}: {} slices, {} tokens, {} us",
                    name_, port->options.lane, microbatch->id, microbatch->slices.size(),
                    microbatch->num_tokens(), spent.count() / 1000);
  port->running = true;
  world_.events.after(spent,
                      [this, port, spent, incarnation = incarnation_, frame = std::move(frame),
                       done = std::move(*microbatch), out = std::move(*result)]() mutable {
                        if (incarnation != incarnation_) return;
                        busy_ = port->running = false;
                        if (!port->ended)
                          finish(*port, std::move(frame), spent, done, std::move(out));
                        wake();
                      });
  return true;
}

/// Takes it in, on both accounts. Empty if something is wrong with it.
std::optional<graph::StepResult> SimRank::run(StagePort& port, const SimFrame& frame,
                                              const graph::Microbatch& given) {
  const bool computes = given.stages.contains(StageIndex(port.stage));
  graph::Microbatch microbatch = given;
  if (!computes) {
    check_supply(port, given);
    microbatch.slices.clear();
    microbatch.descriptors.clear();
  }
  if (const Status fits = table_.check(microbatch); !fits.ok()) {
    world_.fail("{}: microbatch {}: {}", name_, microbatch.id, fits.error().message);
    return std::nullopt;
  }
  table_.apply(microbatch);
  for (const SequenceId id : microbatch.released) port.held.erase(id);
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) port.held.insert(d.id);
  Result<graph::StepResult> result = port.chain.run(microbatch, computes);
  if (!result.ok()) {
    world_.fail("{}: microbatch {}: {}", name_, microbatch.id, result.error().message);
    return std::nullopt;
  }
  log(port, microbatch);
  // After a repair more may be there to forget than one microbatch names.
  const bool all_named =
      microbatch.released.size() < static_cast<size_t>(port.options.max_sequences);
  for (const uint64_t seed : frame.forgotten)
    if (all_named && port.chain.holds_seed(seed))
      world_.fail("{}: microbatch {} does not release what was cancelled", name_, microbatch.id);
  return std::move(*result);
}

void SimRank::log(StagePort& port, const graph::Microbatch& microbatch) {
  const bool keep = microbatch.keep_log && world_.plant != Plant::log_dropped;
  for (const graph::BlockCopy& copy : microbatch.copies) port.log.copy(copy.from, copy.to, keep);
  size_t slice_index = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto table = table_.block_table(slice.id);
    const auto write_from = static_cast<size_t>(table_.write_from()[slice_index++]);
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const float row = row_of(slice.tokens[i], p);
      port.log.add(table[p / kBlockTokens], static_cast<int32_t>(p % kBlockTokens), {&row, 1},
                   world_.plant != Plant::log_outlived && p >= write_from, keep);
    }
  }
}

/// The stage before the first that computes has what it sent them.
void SimRank::check_supply(StagePort& port, const graph::Microbatch& microbatch) {
  if (port.stage + 1 != microbatch.stages.first) return;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto descriptor =
        std::find_if(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                     [&](const graph::SequenceDescriptor& d) { return d.id == slice.id; });
    if (descriptor == microbatch.descriptors.end() || slice.table_offset != 0)
      return world_.fail("{}: microbatch {}: {} is not described anew", name_, microbatch.id,
                         slice.id);
    if (!port.chain.holds(slice, descriptor->sampling.seed))
      return world_.fail("{}: microbatch {}: sends again what {} never had here", name_,
                         microbatch.id, slice.id);
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const KvBlockId block = slice.new_blocks[p / kBlockTokens];
      const auto offset = static_cast<int32_t>(p % kBlockTokens);
      if (port.log.num_positions(block) <= offset)
        return world_.fail("{}: microbatch {}: position {} of {} was not logged", name_,
                           microbatch.id, p, slice.id);
      if (port.log.row(block, offset)[0] != row_of(slice.tokens[i], p))
        return world_.fail("{}: microbatch {}: what was logged for position {} of {} is another's",
                           name_, microbatch.id, p, slice.id);
    }
  }
}

void SimRank::check_accounts(StagePort& port, const SimFrame& frame) {
  const uint64_t microbatch = frame.id;
  size_t num_sequences = 0;
  int32_t num_blocks = 0;
  for (const auto& each : ports_) {
    num_sequences += each->held.size();
    num_blocks += each->chain.num_blocks_held();
  }
  if (table_.num_sequences() != num_sequences || table_.num_blocks_held() != num_blocks)
    world_.fail("{}: its table has {} sequences in {} blocks, its lanes {} in {}", name_,
                table_.num_sequences(), table_.num_blocks_held(), num_sequences, num_blocks);
  if (!frame.settled) return;
  const StageAccount account{port.chain.num_blocks_held(), port.chain.num_held()};
  const auto [first, is_first] = port.accounts->try_emplace(microbatch, account);
  if (!is_first && first->second != account)
    world_.fail("{}: after microbatch {} it holds {} blocks of {} sequences, stage 0 held {} of {}",
                name_, microbatch, account.num_blocks, account.num_sequences,
                first->second.num_blocks, first->second.num_sequences);
  if (port.last) port.accounts->erase(microbatch);
}

/// a + b tokens + d attended, a fifth more or less, and now and then ten times that.
Duration SimRank::cost_of(const graph::Microbatch& microbatch) {
  graph::StepWork work;
  for (const graph::SequenceSlice& slice : microbatch.slices)
    work.add(static_cast<int64_t>(slice.tokens.size()), slice.first_position);
  const graph::StepCost::Coefficients& c = scenario_.cost;
  double seconds =
      c.overhead_s + c.token_s * static_cast<double>(work.tokens) + c.attended_s * work.attended;
  seconds *= slowness_ * world_.random.uniform(0.8, 1.2);
  if (world_.random.chance(200)) seconds *= 10;
  return Duration(1 + static_cast<int64_t>(seconds * 1e9));
}

void SimRank::finish(StagePort& port, SimFrame frame, Duration spent,
                     const graph::Microbatch& microbatch, graph::StepResult result) {
  const SimFrame came = frame;
  if (port.last) {
    result.slowest = microbatch.slowest;
    result.slowest_stage = microbatch.slowest_stage;
    frame.bytes.clear();
    graph::encode(result, frame.bytes);
  }
  graph::note_step_time(frame.bytes, spent, StageIndex(port.stage));
  port.out->send(std::move(frame));
  if (port.in) port.in->release(came);
}

void SimRank::check_empty() const {
  if (busy_ || table_.num_sequences() != 0 || table_.num_blocks_held() != 0)
    world_.fail("{}: {} sequences in {} blocks are left", name_, table_.num_sequences(),
                table_.num_blocks_held());
  for (const auto& port : ports_)
    if (!port->queue.empty() || port->chain.num_held() != 0)
      world_.fail("{}: {} frames and {} sequences are left", name_, port->queue.size(),
                  port->chain.num_held());
}

void SimRank::plant_bug(StagePort& port, graph::Microbatch& microbatch) {
  if (world_.plant == Plant::copy_missed) microbatch.copies.clear();
  if (world_.plant == Plant::described_once && microbatch.stages != graph::StageSpan{})
    microbatch.descriptors.clear();
  if (world_.plant == Plant::release_lost && port.last && world_.random.chance(20))
    microbatch.released.clear();
  if (world_.plant == Plant::philox_position_lost)
    for (graph::SequenceDescriptor& d : microbatch.descriptors) {
      d.prompt.insert(d.prompt.end(), d.generated.begin(), d.generated.end());
      d.generated.clear();
    }
  if (world_.plant != Plant::position_off_by_one) return;
  for (graph::SequenceSlice& slice : microbatch.slices)
    if (slice.first_position > 0 && !port.chain.holds(slice.id)) --slice.first_position;
}

}  // namespace chainpump::sim
