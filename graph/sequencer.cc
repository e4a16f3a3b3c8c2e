// Taking requests in, and ending them.
#include "graph/sequencer.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "graph/sequencer_draft.h"

namespace chainpump::graph {
namespace {

size_t smallest(const std::vector<StageRoom>& stages) {
  CHECK(!stages.empty());
  const auto fewer = [](const StageRoom& a, const StageRoom& b) {
    return a.num_kv_blocks < b.num_kv_blocks;
  };
  return static_cast<size_t>(std::min_element(stages.begin(), stages.end(), fewer) -
                             stages.begin());
}

}  // namespace

Sequencer::Sequencer(const SequencerOptions& options)
    : options_(options),
      smallest_stage_(smallest(options.stages)),
      cache_({.first_block = options.first_kv_block,
              .num_blocks = options.stages[smallest_stage_].num_kv_blocks,
              .block_tokens = options.block_tokens,
              .prefix_cache = options.prefix_cache}),
      cost_(options.cost_prior),
      store_(options.lane) {
  CHECK_GE(options.prefill_chunk_tokens, 0);
  CHECK_GT(options.max_microbatch_tokens, 0);
  CHECK_GE(options.max_microbatch_tokens, options.prefill_chunk_tokens);
  CHECK_GT(options.max_sequences, 0);
  CHECK_GT(options.max_microbatches, 0);
  CHECK_GT(options.block_tokens, 0);
  CHECK_GE(options.max_queued, 1);
  CHECK_LT(int64_t{options.max_queued} + 2 * int64_t{options.max_sequences},
           static_cast<int64_t>(SequenceStore::kMaxSlots));
}

bool Sequencer::ranks_higher(const Sequence& a, const Sequence& b) {
  const int32_t a_priority = a.request->what.priority;
  const int32_t b_priority = b.request->what.priority;
  return a_priority != b_priority ? a_priority > b_priority : a.age < b.age;
}

/// Returns where it stands.
size_t Sequencer::insert_by_rank(std::vector<Sequence*>& list, Sequence& sequence) {
  const auto lower = [](const Sequence* a, const Sequence* b) { return ranks_higher(*a, *b); };
  const auto place = std::upper_bound(list.begin(), list.end(), &sequence, lower);
  return static_cast<size_t>(list.insert(place, &sequence) - list.begin());
}

/// Of those with known tokens to send. One that decodes stands in neither.
void Sequencer::take_off_lists(const Sequence& sequence) {
  for (auto* list : {&prefill_, &repairing_})
    list->erase(std::remove(list->begin(), list->end(), &sequence), list->end());
}

Status Sequencer::check(const Request& request) const {
  const auto refuse = [](std::string what) {
    return Error{.code = ErrorCode::invalid_argument, .message = std::move(what)};
  };
  RETURN_IF_ERROR(validate(request.sampling, options_.vocabulary_size));
  const bool scoring = request.score.first_position >= 0;
  const auto num_prompt = static_cast<int64_t>(request.prompt.size());
  const auto num_generated = static_cast<int64_t>(request.generated.size());
  if (num_prompt == 0) return refuse("the prompt has no tokens");
  const auto foreign = [&](TokenId token) {
    return token < 0 || token >= options_.vocabulary_size;
  };
  for (const auto* tokens : {&request.prompt, &request.generated}) {
    const auto found = std::find_if(tokens->begin(), tokens->end(), foreign);
    if (found != tokens->end())
      return refuse(fmt::format("{} token {} is outside the vocabulary of {} tokens",
                                tokens == &request.prompt ? "prompt" : "generated", *found,
                                options_.vocabulary_size));
  }
  if (num_prompt + (scoring ? 0 : 1) > options_.context_tokens ||
      num_prompt + num_generated > options_.context_tokens)
    return refuse(
        fmt::format("the prompt has {} tokens, but this deployment serves {} in all "
                    "(raise kv.context or --context, or shorten the prompt)",
                    num_prompt, options_.context_tokens));
  if (scoring && int64_t{request.score.first_position} + 1 >= num_prompt)
    return refuse(fmt::format("nothing to score: first position {} of {} tokens",
                              request.score.first_position, num_prompt));
  if (request.num_choices < 1 || request.num_choices > options_.max_queued)
    return refuse(
        fmt::format("n is {}, must be in [1, {}]", request.num_choices, options_.max_queued));
  if (request.num_choices > 1 && (scoring || num_generated > 0))
    return refuse("only a new generation can have several choices");
  if (num_generated > 0 && (scoring || num_generated >= request.sampling.max_new_tokens))
    return refuse(fmt::format("nothing is left to generate after {} tokens", num_generated));
  if (!(request.tenant_weight > 0) || !std::isfinite(request.tenant_weight))
    return refuse(fmt::format("a tenant's weight is {}, must be positive", request.tenant_weight));
  return ok_status();
}

Status Sequencer::submit(Request request, TimePoint now) {
  RETURN_IF_ERROR(check(request));
  if (store_.find_request(request.id) != nullptr)
    return make_error(ErrorCode::invalid_argument, "request {} is here already", request.id);
  const auto num_prompt = static_cast<int32_t>(request.prompt.size());
  // The last token made is never read back, so it needs no position of its own.
  request.sampling.max_new_tokens =
      std::min(request.sampling.max_new_tokens, options_.context_tokens - num_prompt + 1);
  RETURN_IF_ERROR(check_size(request));
  RETURN_IF_ERROR(check_room(request));
  if (request.deadline && *request.deadline <= now)
    return make_error(ErrorCode::deadline_exceeded, "the deadline passed before it was admitted");

  queue_.set_weight(request.tenant, request.tenant_weight);
  if (request.deadline) deadlines_.emplace(*request.deadline, request.id);
  RequestRecord& record = store_.add_request(request.id);
  record.num_prompt = num_prompt;
  record.num_blocks_max = blocks_for(request.score.first_position >= 0
                                         ? num_prompt - 1
                                         : num_prompt + request.sampling.max_new_tokens - 1);
  record.descriptor_bytes = descriptor_bytes_max(request);
  record.prompt_sent = num_prompt == 1;  // there is nothing before its last position to share
  std::vector<TokenId> tokens = std::move(request.prompt);
  tokens.insert(tokens.end(), request.generated.begin(), request.generated.end());
  record.what = std::move(request);
  for (int32_t i = 0; i < record.what.num_choices; ++i) {
    Sequence& sequence = store_.add();
    sequence.request = &record;
    sequence.request_id = record.what.id;
    sequence.tenant = record.what.tenant;
    sequence.scoring = record.scoring();
    sequence.index = record.what.first_choice + static_cast<uint32_t>(i);
    sequence.age = ++last_age_;
    sequence.tokens = TokenLog(tokens);
    sequence.num_needed = static_cast<int32_t>(tokens.size()) - (sequence.scoring ? 1 : 0);
    sequence.next_score = record.what.score.first_position;
    record.sequences.push_back(&sequence);
    ++num_waiting_;
    if (i == 0) record.leader = sequence.id;
    if (i == 0 || record.prompt_sent) enqueue(sequence, false);
  }
  return ok_status();
}

void Sequencer::cancel(RequestId id) {
  if (RequestRecord* request = store_.find_request(id)) end_all(*request);
}

void Sequencer::cancel(RequestId id, uint32_t choice) {
  RequestRecord* request = store_.find_request(id);
  if (request == nullptr) return;
  const auto found = std::find_if(request->sequences.begin(), request->sequences.end(),
                                  [&](const Sequence* s) { return s->index == choice; });
  if (found != request->sequences.end()) end(**found);
}

// From the last on: nobody becomes the leader only to end next.
void Sequencer::end_all(RequestRecord& request) {
  for (size_t left = request.sequences.size(); left > 0; --left) end(*request.sequences.back());
}

/// Forgets a sequence in whatever state it is, and its request with the last of them.
void Sequencer::end(Sequence& sequence) {
  RequestRecord& request = *sequence.request;
  switch (sequence.state) {
    case Sequence::State::running:
      stop_running(sequence);
      break;
    case Sequence::State::queued:
      CHECK(queue_.erase(sequence.id));
      count_out(sequence);
      --num_waiting_;
      break;
    case Sequence::State::held:
    case Sequence::State::drained:
      --num_waiting_;
      break;
  }
  if (sequence.preempted && sequence.state != Sequence::State::running) --num_preempted_;
  const bool led = request.leader == sequence.id;
  request.sequences.erase(std::find(request.sequences.begin(), request.sequences.end(), &sequence));
  store_.remove(sequence);
  if (request.sequences.empty()) {
    if (request.what.deadline) deadlines_.erase({*request.what.deadline, request.what.id});
    store_.remove_request(request.what.id);
    return;
  }
  if (led && !request.prompt_sent) lead_on(request);
}

/// The next choice computes the prompt in place of one that has ended.
void Sequencer::lead_on(RequestRecord& request) {
  Sequence& next = *request.sequences.front();
  CHECK(next.state == Sequence::State::held);
  request.leader = next.id;
  enqueue(next, true);
}

/// Gives back what a running sequence has here; the stages are told by the next microbatch.
void Sequencer::stop_running(Sequence& sequence) {
  cache_.release(sequence.table);
  sequence.table.clear();
  sequence.contents.clear();
  sequence.num_blocks_told = 0;
  if (sequence.described || sequence.repairing) releasing_.push_back(sequence.id);
  sequence.described = false;
  set_repairing(sequence, false);
  if (sequence.decoding)
    --num_decoding_;
  else
    take_off_lists(sequence);
  sequence.decoding = false;
  running_.back()->running_at = sequence.running_at;
  running_[sequence.running_at] = running_.back();
  running_.pop_back();
  queue_.remove_running(sequence.request->what.tenant);
}

void Sequencer::on_time(TimePoint now, Deliveries& out) {
  if (!orphans_.empty() && orphans_until_ <= now) let_orphans_go();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    RequestRecord* request = store_.find_request(deadlines_.begin()->second);
    CHECK(request != nullptr);
    for (const Sequence* sequence : request->sequences) {
      const int32_t made = sequence->tokens.size() - request->num_prompt;
      out.ended.push_back({{request->what.id, sequence->index},
                           make_error(ErrorCode::deadline_exceeded,
                                      "the deadline has passed; {} tokens were generated", made)});
    }
    end_all(*request);
  }
}

std::optional<TimePoint> Sequencer::next_deadline() const {
  std::optional<TimePoint> next;
  if (!deadlines_.empty()) next = deadlines_.begin()->first;
  if (!orphans_.empty()) next = next ? std::min(*next, orphans_until_) : orphans_until_;
  return next;
}

bool Sequencer::idle() const {
  return store_.num_requests() == 0 && releasing_.empty() && in_flight_.empty();
}

std::vector<SequenceId> Sequencer::running() const {
  std::vector<SequenceId> ids;
  for (const Sequence* sequence : running_) ids.push_back(sequence->id);
  return ids;
}

SequencerStats Sequencer::stats() const {
  SequencerStats stats = counters_;
  stats.num_running = num_running();
  stats.num_waiting = num_waiting_;
  stats.num_preempted_now = num_preempted_;
  const auto num_left = static_cast<int32_t>(releasing_.size()) - options_.max_sequences;
  stats.num_repairing = num_repairing_ + std::max(0, num_left);
  stats.num_orphans = static_cast<int32_t>(orphans_.size());
  stats.num_in_flight = num_in_flight();
  stats.waiting_tokens = waiting_.tokens;
  stats.num_free_blocks = cache_.num_free();
  stats.num_cached_blocks = cache_.num_cached();
  stats.num_blocks = cache_.num_blocks();
  return stats;
}

}  // namespace chainpump::graph
