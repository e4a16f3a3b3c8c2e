#include "tests/sim/sim_front.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace chainpump::sim {
namespace {

/// For a person who reads the trace: sequences by their counters.
std::string describe(const graph::Microbatch& microbatch) {
  const auto number = [](SequenceId id) { return id.value >> 20 & 0xfffffffff; };
  std::string text = fmt::format("microbatch {}:", microbatch.id);
  if (microbatch.stages != graph::StageSpan{})
    text += fmt::format(" stages {} to {}", microbatch.stages.first, microbatch.stages.last);
  for (const SequenceId id : microbatch.released) text += fmt::format(" -{}", number(id));
  for (const graph::BlockCopy& copy : microbatch.copies)
    text += fmt::format(" {}=>{}", copy.from, copy.to);
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    text += fmt::format(" {}@{}+{}", number(slice.id), slice.first_position, slice.tokens.size());
    if (!slice.new_blocks.empty())
      text += fmt::format("[{}:{}]", slice.table_offset, fmt::join(slice.new_blocks, ","));
  }
  return text;
}

}  // namespace

SimFront::SimFront(SimWorld& world, const Scenario& scenario, graph::LaneId lane,
                   std::function<void(std::function<void()>)> awake, std::function<void()> wake)
    : world_(world),
      scenario_(scenario),
      lane_(lane),
      options_(scenario.lanes[lane.value]),
      awake_(std::move(awake)),
      wake_(std::move(wake)),
      sequencer_(options_) {}

// -------------------------------------------------------------------------------- the door

/// Requests have other numbers here than at the client; top_k, of which nothing else in the
/// simulator takes notice, carries them to the stages.
void SimFront::submit(const std::shared_ptr<ResultStream>& client, uint64_t wire,
                      graph::Request request) {
  if (std::find(clients_.begin(), clients_.end(), client) == clients_.end()) return;
  ++client->num_taken;
  const RequestId id(++world_.last_taken);
  request.id = id;
  request.sampling.top_k = static_cast<int32_t>(id.value);
  const auto tenant = static_cast<size_t>(request.tenant.value);
  weights_[tenant] = request.tenant_weight;
  const std::optional<TimePoint> deadline = request.deadline;
  if (world_.plant == Plant::salt_dropped) request.cache_salt = 0;
  if (world_.plant == Plant::tenant_starved && tenant + 1 == kTenants) request.tenant_weight = 1e-3;
  graph::Request told = request;
  if (world_.plant == Plant::priority_inverted) told.priority = -told.priority;
  Entry entry{.client = client, .wire = wire, .open = {}};
  for (int i = 0; i < request.num_choices; ++i)
    entry.open.insert(request.first_choice + static_cast<uint32_t>(i));
  const Status taken = sequencer_.submit(std::move(told), world_.now());
  world_.say("lane {}: request {} is {} here: {}", lane_, wire, id,
             taken.ok() ? "taken in" : taken.error().message);
  if (!taken.ok()) {
    for (const uint32_t choice : entry.open)
      client->gathered.ends.push_back({wire, choice, taken.error()});
    return client->flush(stats(client->num_taken));
  }
  preemptions_.submitted(request);
  ++waiting_[tenant];
  entries_.emplace(id, std::move(entry));
  if (deadline) world_.events.at(*deadline, [this] { awake_([this] { on_time(); }); });
  wake_();
}

void SimFront::cancel(const std::shared_ptr<ResultStream>& client, uint64_t wire,
                      std::optional<uint32_t> choice) {
  std::vector<RequestId> meant;
  for (const auto& [id, entry] : entries_)
    if (entry.client == client && entry.wire == wire) meant.push_back(id);
  for (const RequestId id : meant) {
    Entry& entry = entries_.at(id);
    if (choice && !entry.open.contains(*choice)) continue;
    if (choice) {
      sequencer_.cancel(id, *choice);
      preemptions_.ended(graph::Choice{id, *choice});
      entry.open.erase(*choice);
    } else {
      sequencer_.cancel(id);
      preemptions_.ended(id);
      forgotten_.push_back(id.value);
      entry.open.clear();
    }
    if (entry.open.empty()) entries_.erase(id);
  }
  wake_();
}

/// What ran for it is cancelled.
void SimFront::detach(const std::shared_ptr<ResultStream>& client) {
  std::erase(clients_, client);
  std::erase_if(entries_, [&](const auto& entry) {
    if (entry.second.client != client) return false;
    if (world_.plant == Plant::detach_forgotten) return true;
    sequencer_.cancel(entry.first);
    preemptions_.ended(entry.first);
    return true;
  });
  wake_();
}

SimFront::Entry* SimFront::find(const graph::Choice& choice) {
  const auto found = entries_.find(choice.request);
  if (found != entries_.end() && found->second.open.contains(choice.index)) return &found->second;
  world_.fail("lane {}: something comes for choice {} of request {}, which has ended", lane_,
              choice.index, choice.request);
  return nullptr;
}

void SimFront::deliver(const graph::Deliveries& out) {
  for (const auto& [choice, token] : out.tokens)
    if (Entry* const entry = find(choice))
      entry->client->gathered.tokens.push_back({entry->wire, choice.index, token});
  for (const auto& [choice, score] : out.scores)
    if (Entry* const entry = find(choice))
      entry->client->gathered.scores.push_back({entry->wire, choice.index, score});
  for (const auto& [choice, how] : out.ended) {
    Entry* const entry = find(choice);
    if (entry == nullptr) continue;
    preemptions_.ended(choice);
    entry->client->gathered.ends.push_back({entry->wire, choice.index, how});
    entry->open.erase(choice.index);
    if (entry->open.empty()) entries_.erase(choice.request);
  }
  for (const auto& client : clients_) client->flush(stats(client->num_taken));
}

graph::LaneStats SimFront::stats(uint64_t num_taken) const {
  const graph::SequencerStats now = sequencer_.stats();
  return {.num_taken = num_taken,
          .num_free_blocks = now.num_free_blocks,
          .queue_room = std::max(0, options_.max_queued - now.num_waiting),
          .waiting_tokens = now.waiting_tokens,
          .num_running = now.num_running,
          .tokens_per_s = 1 / (scenario_.cost.token_s + scenario_.cost.overhead_s / 8)};
}

void SimFront::on_time() {
  graph::Deliveries out;
  sequencer_.on_time(world_.now(), out);
  deliver(out);
  wake_();
}

// -------------------------------------------------------------------------------- the stage

std::optional<SimFrame> SimFront::form(const std::vector<const StageMemory*>& stages) {
  const graph::SequencerStats now = sequencer_.stats();
  const bool settled = now.num_repairing == 0 && now.num_orphans == 0;
  const std::optional<graph::Microbatch> microbatch = sequencer_.next();
  if (!microbatch) return std::nullopt;
  world_.say("lane {} forms {}", lane_, describe(*microbatch));
  std::string wrong;
  // Then the stages are as the sequencer takes them to be, if all of them live.
  const bool all_live = std::find(stages.begin(), stages.end(), nullptr) == stages.end();
  if (all_live && sequencer_.num_in_flight() == 1)
    wrong = check_minimal(*microbatch, sequencer_.running(), stages);
  if (wrong.empty()) wrong = preemptions_.formed(*microbatch);
  if (!wrong.empty()) world_.fail("lane {}: {}", lane_, wrong);
  if (scenario_.saturated) count_served(*microbatch);
  SimFrame frame{
      .microbatch = microbatch->id.value, .bytes = {}, .forgotten = {}, .settled = settled};
  frame.forgotten.swap(forgotten_);
  encode(*microbatch, frame.bytes);
  return frame;
}

void SimFront::take_result(const SimFrame& frame) {
  graph::MicrobatchLimits limits{.max_tokens = options_.max_microbatch_tokens,
                                 .max_sequences = options_.max_sequences,
                                 .context_tokens = kContext,
                                 .num_kv_blocks = scenario_.kv_blocks_per_lane,
                                 .vocabulary_size = kVocabulary};
  const Result<graph::StepResult> result = graph::decode_step_result(frame.bytes, limits);
  if (!result.ok()) return world_.fail("lane {}: {}", lane_, result.error().message);
  graph::Deliveries out;
  const Status taken = sequencer_.on_result(*result, world_.now(), out);
  if (!taken.ok()) return world_.fail("lane {}: {}", lane_, taken.error().message);
  deliver(out);
  if (world_.plant == Plant::double_delivery && world_.random.chance(50)) deliver(out);
  if (world_.plant == Plant::stale_result) last_result_ = frame;
}

void SimFront::repair(std::vector<graph::StageHoldings> holdings) {
  if (world_.plant == Plant::strangers_kept) {
    const std::vector<SequenceId> known = sequencer_.running();
    for (graph::StageHoldings& stage : holdings)
      std::erase_if(stage.held, [&](const auto& held) {
        return std::find(known.begin(), known.end(), held.id) == known.end();
      });
  }
  if (std::exchange(is_new_, false)) {
    sequencer_.adopt(holdings, world_.now());
    // What nobody asks for again is kept until then.
    if (const auto until = sequencer_.next_deadline())
      world_.events.at(*until, [this] { awake_([this] { on_time(); }); });
  } else {
    sequencer_.repair(holdings);
  }
  if (last_result_) take_result(*std::exchange(last_result_, std::nullopt));
}

/// While every tenant has somebody who has not begun. Requests of a saturated run have one choice
/// each, and the upper half of a seed names the tenant.
void SimFront::count_served(const graph::Microbatch& microbatch) {
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    const auto tenant = static_cast<uint32_t>(d.sampling.seed >> 32);
    tenant_of_[d.id] = tenant;
    if (seen_.insert(d.sampling.top_k).second && --waiting_[tenant] == 0) all_wait_ = false;
  }
  if (!all_wait_) return;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const uint32_t tenant = tenant_of_.at(slice.id);
    served_[tenant] += static_cast<double>(slice.tokens.size()) / weights_[tenant];
  }
}

// -------------------------------------------------------------------------------- checks

void SimFront::check_books() const {
  const graph::SequencerStats stats = sequencer_.stats();
  // Those that run, and as many more that are given again, are beyond the queue's own bound.
  const int bound = options_.max_queued + 2 * options_.max_sequences;
  if (stats.num_running > options_.max_sequences || stats.num_running + stats.num_waiting > bound ||
      stats.num_preempted_now > stats.num_waiting || stats.num_preempted_now < 0 ||
      stats.waiting_tokens < 0 || stats.num_in_flight > options_.max_microbatches ||
      stats.num_free_blocks > stats.num_blocks)
    world_.fail("lane {}: {} run, {} wait ({} preempted), {} microbatches are in flight", lane_,
                stats.num_running, stats.num_waiting, stats.num_preempted_now, stats.num_in_flight);
  const std::optional<TimePoint> deadline = sequencer_.next_deadline();
  if (deadline && *deadline < world_.now()) world_.fail("lane {}: a deadline was left over", lane_);
}

void SimFront::check_idle() const {
  const graph::SequencerStats stats = sequencer_.stats();
  if (!sequencer_.idle() || stats.num_free_blocks != stats.num_blocks || !entries_.empty() ||
      stats.num_running + stats.num_waiting != 0 || stats.waiting_tokens != 0)
    world_.fail("lane {}: {} run, {} wait, {} of {} blocks are free at the end", lane_,
                stats.num_running, stats.num_waiting, stats.num_free_blocks, stats.num_blocks);
}

}  // namespace chainpump::sim
