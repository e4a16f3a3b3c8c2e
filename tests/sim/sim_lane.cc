#include "tests/sim/sim_lane.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>

namespace chainpump::sim {
namespace {

void add(graph::SequencerStats& sum, const graph::SequencerStats& part) {
  sum.preemptions += part.preemptions;
  sum.positions_rebuilt += part.positions_rebuilt;
  sum.prompt_tokens_hit += part.prompt_tokens_hit;
  sum.tokens_generated += part.tokens_generated;
}

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

SimLane::SimLane(SimWorld& world, const Scenario& scenario, const graph::SequencerOptions& options,
                 std::vector<SimRank*> ranks, std::function<void(const graph::Deliveries&)> deliver)
    : world_(world),
      scenario_(scenario),
      options_(options),
      ranks_(std::move(ranks)),
      deliver_(std::move(deliver)) {}

void SimLane::start() {
  ++incarnation_;
  num_taken_ = 0;
  last_formed_ = 0;
  sequencer_ = std::make_unique<graph::Sequencer>(options_);
  const auto accounts = std::make_shared<std::map<uint64_t, StageAccount>>();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ports_.push_back(
        std::make_shared<StagePort>(options_, static_cast<int>(i), scenario_.log_blocks));
    ports_[i]->accounts = accounts;
  }
  make_links();
  ports_[0]->form = [this] { return form(); };
  for (size_t i = 0; i < ranks_.size(); ++i) ranks_[i]->add(ports_[i]);
  world_.trace.line(world_.events.now(), "lane {} starts, incarnation {}", options_.lane,
                    incarnation_);
}

void SimLane::make_links() {
  links_.clear();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const bool returns = i + 1 == ranks_.size();
    links_.push_back(make_link(
        i, returns ? std::max(scenario_.credits, options_.max_microbatches) : scenario_.credits));
    ports_[i]->out = links_[i];
    if (!returns) ports_[i + 1]->in = links_[i];
    ports_[i]->last_run = last_formed_;
  }
}

/// Only a link that is open calls back, so nothing comes from an earlier incarnation.
std::shared_ptr<SimLink> SimLane::make_link(size_t from, int32_t credits) {
  const bool returns = from + 1 == ranks_.size();
  const auto on_frame = [this, from, returns](SimFrame frame) {
    if (returns)
      on_result(std::move(frame));
    else
      ranks_[from + 1]->on_frame(*ports_[from + 1], std::move(frame));
  };
  return std::make_shared<SimLink>(world_, scenario_,
                                   fmt::format("lane {} link {}", options_.lane, from), credits,
                                   last_formed_, on_frame, [this, from] { ranks_[from]->wake(); });
}

void SimLane::close_link(size_t index) {
  world_.trace.line(world_.events.now(), "lane {} link {} closes", options_.lane, index);
  links_[index]->close();
}

void SimLane::end() {
  add(totals_, sequencer_->stats());
  world_.trace.line(world_.events.now(), "lane {} ends", options_.lane);
  for (const auto& link : links_) link->close();
  for (size_t i = 0; i < ranks_.size(); ++i)
    if (!dead_.contains(i)) ranks_[i]->remove(ports_[i]);
  dead_.clear();
  links_.clear();
  ports_.clear();
  forgotten_.clear();
  preemptions_ = PreemptionCheck(kBlockTokens);
  sequencer_.reset();
}

Status SimLane::submit(graph::Request request) {
  ++num_taken_;
  const auto tenant = static_cast<size_t>(request.tenant.value);
  const double weight = request.tenant_weight;
  const std::optional<TimePoint> deadline = request.deadline;
  if (world_.plant == Plant::salt_dropped) request.cache_salt = 0;
  if (world_.plant == Plant::tenant_starved && tenant + 1 == kTenants) request.tenant_weight = 1e-3;
  graph::Request told = request;
  if (world_.plant == Plant::priority_inverted) told.priority = -told.priority;
  RETURN_IF_ERROR(sequencer_->submit(std::move(told), world_.events.now()));
  preemptions_.submitted(request);
  ++waiting_[tenant];
  weights_[tenant] = weight;
  if (deadline)
    world_.events.at(*deadline, [this, incarnation = incarnation_] {
      if (serving() && incarnation == incarnation_) on_time();
    });
  world_.events.after(Duration(0), [rank = ranks_[0]] { rank->wake(); });
  return ok_status();
}

void SimLane::cancel(RequestId id, uint64_t seed) {
  sequencer_->cancel(id);
  preemptions_.ended(id);
  forgotten_.push_back(seed);
  ranks_[0]->wake();
}

void SimLane::cancel(RequestId id, uint32_t choice) {
  sequencer_->cancel(id, choice);
  preemptions_.ended({id, choice});
  ranks_[0]->wake();
}

void SimLane::on_time() {
  graph::Deliveries out;
  sequencer_->on_time(world_.events.now(), out);
  pass_on(out);
  ranks_[0]->wake();
}

std::optional<SimFrame> SimLane::form() {
  if (!dead_.empty()) return std::nullopt;
  const bool settled = sequencer_->stats().num_repairing == 0;
  const std::optional<graph::Microbatch> microbatch = sequencer_->next();
  if (!microbatch) return std::nullopt;
  last_formed_ = microbatch->id.value;
  world_.trace.line(world_.events.now(), "lane {} forms {}", options_.lane, describe(*microbatch));
  if (sequencer_->num_in_flight() == 1) check_minimal(*microbatch);
  if (const std::string wrong = preemptions_.formed(*microbatch); !wrong.empty())
    world_.fail("lane {}: {}", options_.lane, wrong);
  if (scenario_.saturated) count_served(*microbatch);
  SimFrame frame{.id = microbatch->id.value, .bytes = {}, .forgotten = {}, .settled = settled};
  frame.forgotten.swap(forgotten_);
  encode(*microbatch, frame.bytes);
  return frame;
}

void SimLane::on_result(SimFrame frame) {
  graph::MicrobatchLimits limits{.max_tokens = options_.max_microbatch_tokens,
                                 .max_sequences = options_.max_sequences,
                                 .context_tokens = kContext,
                                 .num_kv_blocks = scenario_.kv_blocks_per_lane,
                                 .vocabulary_size = kVocabulary};
  const Result<graph::StepResult> result = graph::decode_step_result(frame.bytes, limits);
  if (!result.ok()) return world_.fail("lane {}: {}", options_.lane, result.error().message);
  graph::Deliveries out;
  const Status taken = sequencer_->on_result(*result, world_.events.now(), out);
  if (!taken.ok()) return world_.fail("lane {}: {}", options_.lane, taken.error().message);
  links_.back()->release(frame);
  pass_on(out);
  if (world_.plant == Plant::double_delivery && world_.random.chance(50)) pass_on(out);
  if (world_.plant == Plant::stale_result) last_result_ = std::move(frame);
  ranks_[0]->wake();
}

bool SimLane::uses(const SimRank* rank) const {
  return std::find(ranks_.begin(), ranks_.end(), rank) != ranks_.end();
}

void SimLane::lose(const SimRank* rank, Duration restart) {
  const bool first = dead_.empty();
  for (size_t i = 1; i < ranks_.size(); ++i) {
    if (ranks_[i] != rank) continue;
    world_.trace.line(world_.events.now(), "lane {} loses stage {}", options_.lane, i);
    if (world_.plant == Plant::lost_said_held) held_before_[i] = rank->holdings(*ports_[i]);
    dead_.insert(i);
    links_[i - 1]->close();
    links_[i]->close();
  }
  repair_at_ = std::max(repair_at_, world_.events.now() + restart);
  if (first) try_repair();
}

void SimLane::try_repair() {
  if (dead_.empty()) return;
  if (world_.events.now() >= repair_at_ && drained()) return repair();
  world_.events.after(std::chrono::microseconds(100), [this, incarnation = incarnation_] {
    if (serving() && incarnation == incarnation_) try_repair();
  });
}

/// The stages after the last that died have nothing to do any more, and no stage is in a step.
bool SimLane::drained() const {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (dead_.contains(i)) continue;
    if (ports_[i]->running) return false;
    if (i > *dead_.rbegin() && (!ports_[i]->queue.empty() || !links_[i]->is_empty())) return false;
  }
  return true;
}

void SimLane::repair() {
  world_.trace.line(world_.events.now(), "lane {} is repaired", options_.lane);
  const auto accounts = std::make_shared<std::map<uint64_t, StageAccount>>();
  std::vector<graph::StageHoldings> holdings;
  for (const auto& link : links_) link->close();
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (dead_.contains(i)) {
      if (world_.plant == Plant::lost_said_held) holdings.push_back(held_before_[i]);
      ports_[i] = std::make_shared<StagePort>(options_, static_cast<int>(i), scenario_.log_blocks);
      ranks_[i]->add(ports_[i]);
    } else {
      holdings.push_back(ranks_[i]->holdings(*ports_[i]));
      plant_bug(holdings.back());
    }
    ports_[i]->queue.clear();
    ports_[i]->chain.set_repaired();
    ports_[i]->accounts = accounts;
  }
  dead_.clear();
  make_links();
  sequencer_->repair(holdings);
  if (last_result_) on_result(*std::exchange(last_result_, std::nullopt));
  for (SimRank* rank : ranks_) rank->wake();
}

void SimLane::plant_bug(graph::StageHoldings& holdings) const {
  const std::vector<SequenceId> known = sequencer_->running();
  const auto unknown = [&](const auto& held) {
    return std::find(known.begin(), known.end(), held.id) == known.end();
  };
  if (world_.plant == Plant::held_overstated)
    for (auto& held : holdings.held) ++held.num_positions;
  if (world_.plant == Plant::log_hole)
    for (auto& logged : holdings.logged)
      logged.num_positions = std::min(logged.num_positions + 1, kBlockTokens);
  if (world_.plant == Plant::strangers_kept) std::erase_if(holdings.held, unknown);
}

/// When nothing else is under way the stages are as the sequencer takes them to be: no stage
/// computes again but to make what no log holds.
void SimLane::check_minimal(const graph::Microbatch& microbatch) {
  if (microbatch.stages == graph::StageSpan{}) return;
  for (const graph::SequenceSlice& slice : microbatch.slices)
    for (size_t i = 0; i < slice.tokens.size(); ++i) {
      const size_t p = static_cast<size_t>(slice.first_position) + i;
      const bool scores = std::any_of(microbatch.descriptors.begin(), microbatch.descriptors.end(),
                                      [&](const auto& d) {
                                        return d.id == slice.id && d.score.first_position >= 0 &&
                                               static_cast<int32_t>(p) >= d.score.first_position;
                                      });
      const bool needs_result = scores || (slice.sample && i + 1 == slice.tokens.size());
      const graph::StageSpan least = least_span(
          slice.new_blocks[p / kBlockTokens], static_cast<int32_t>(p % kBlockTokens), needs_result);
      const bool enough = microbatch.stages.first >= least.first &&
                          (scores || microbatch.stages.last <= least.last);
      if (!enough)
        return world_.fail(
            "lane {}: microbatch {}: stages {} to {} compute position {} of {}, {} "
            "to {} would do",
            options_.lane, microbatch.id, microbatch.stages.first, microbatch.stages.last, p,
            slice.id, least.first, least.last);
    }
}

graph::StageSpan SimLane::least_span(KvBlockId block, int32_t offset, bool needs_result) const {
  const std::vector<SequenceId> running = sequencer_->running();
  const auto last = static_cast<int32_t>(ranks_.size()) - 1;
  graph::StageSpan span{.first = needs_result ? last : last + 1, .last = needs_result ? last : -1};
  for (int32_t stage = 0; stage <= last; ++stage) {
    const auto at = static_cast<size_t>(stage);
    if (ranks_[at]->num_held(*ports_[at], running, block) > offset) continue;
    span.first = std::min(span.first, stage);
    span.last = std::max(span.last, stage);
  }
  const auto logged = [&](int32_t stage) {
    const auto at = static_cast<size_t>(stage);
    return std::min(ports_[at]->log.num_positions(block),
                    ranks_[at]->num_held(*ports_[at], running, block)) > offset;
  };
  while (span.first > 0 && span.first <= last && !logged(span.first - 1)) --span.first;
  return span;
}

void SimLane::pass_on(const graph::Deliveries& out) {
  for (const graph::EndDelivery& end : out.ended) preemptions_.ended(end.choice);
  deliver_(out);
}

graph::LaneStats SimLane::stats() const {
  const graph::SequencerStats stats = sequencer_->stats();
  return {.num_taken = num_taken_,
          .num_free_blocks = stats.num_free_blocks,
          .queue_room = std::max(0, options_.max_queued - stats.num_waiting),
          .waiting_tokens = stats.waiting_tokens,
          .num_running = stats.num_running,
          .tokens_per_s = 1 / (scenario_.cost.token_s + scenario_.cost.overhead_s / 8)};
}

graph::SequencerStats SimLane::totals() const {
  graph::SequencerStats all = totals_;
  if (serving()) add(all, sequencer_->stats());
  return all;
}

/// While every tenant has somebody who has not begun. Seeds name the requests of a saturated run,
/// which have one choice each.
void SimLane::count_served(const graph::Microbatch& microbatch) {
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    const auto tenant = static_cast<uint32_t>(d.sampling.seed >> 32);
    tenant_of_[d.id] = tenant;
    if (seen_.insert(d.sampling.seed).second && --waiting_[tenant] == 0) all_wait_ = false;
  }
  if (!all_wait_) return;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const uint32_t tenant = tenant_of_.at(slice.id);
    served_[tenant] += static_cast<double>(slice.tokens.size()) / weights_[tenant];
  }
}

void SimLane::check_books() const {
  if (!serving()) return;
  for (const auto& link : links_) link->check_books();
  const graph::SequencerStats stats = sequencer_->stats();
  const int bound = options_.max_queued + options_.max_sequences;
  if (stats.num_running > options_.max_sequences || stats.num_waiting > bound ||
      stats.num_preempted_now > stats.num_waiting || stats.num_preempted_now < 0 ||
      stats.waiting_tokens < 0 || stats.num_in_flight > options_.max_microbatches ||
      stats.num_free_blocks > stats.num_blocks)
    world_.fail("lane {}: {} run, {} wait ({} preempted), {} microbatches are in flight",
                options_.lane, stats.num_running, stats.num_waiting, stats.num_preempted_now,
                stats.num_in_flight);
  const std::optional<TimePoint> deadline = sequencer_->next_deadline();
  if (deadline && *deadline < world_.events.now())
    world_.fail("lane {}: a deadline was left over", options_.lane);
  for (const auto& port : ports_)
    if (!port->ended && static_cast<int32_t>(port->queue.size()) > scenario_.credits)
      world_.fail("lane {}: {} frames wait at stage {}", options_.lane, port->queue.size(),
                  port->stage);
}

void SimLane::check_idle() const {
  if (!serving()) return world_.fail("lane {} did not come back", options_.lane);
  const graph::SequencerStats stats = sequencer_->stats();
  if (!sequencer_->idle() || stats.num_free_blocks != stats.num_blocks ||
      stats.num_running + stats.num_waiting != 0 || stats.waiting_tokens != 0)
    world_.fail("lane {}: {} run, {} wait, {} of {} blocks are free at the end", options_.lane,
                stats.num_running, stats.num_waiting, stats.num_free_blocks, stats.num_blocks);
  for (const auto& link : links_)
    if (!link->at_rest()) world_.fail("lane {}: credits are missing at the end", options_.lane);
}

}  // namespace chainpump::sim
