#include "actors/lane_server.h"

#include <algorithm>
#include <limits>

#include "actors/convert.h"
#include "base/check.h"

namespace chainpump::actors {
namespace {

constexpr Duration kTimeoutMax = std::chrono::hours(24 * 365);  // no sum overflows
constexpr int32_t kSequencesMax = 64;                           // of one request
constexpr Duration kTellEveryone = std::chrono::seconds(1);
constexpr RequestId kCanary{std::numeric_limits<uint64_t>::max()};  // no client's

/// What is wrong with the model's numbers is wrong with the file.
Error named(const Error& how, const std::string& model_path) {
  if (how.code != ErrorCode::internal) return how;
  return make_error(
      how.code,
      "{}: the weights in {} are damaged; compare the file with its source or fetch it again "
      "('chainpump inspect' lists what is in it)",
      how.message, model_path);
}

}  // namespace

void LaneServer::attach(AttachCommand command) {
  clients_.attach(command.client, std::move(command.sink));
  command.reply(Ok{});
  if (canary_.last_crossing()) flush(true);
}

void LaneServer::begin(PlanEpoch epoch) {
  epoch_ = epoch;
  canary_.begin(clock_.now());
  told_everyone_ = {};
}

void LaneServer::look_after(TimePoint now) {
  if (!canary_.due() || now < *canary_.due() || !canary_.ask(sequencer_.idle(), now)) return;
  graph::Request request;
  request.id = kCanary;
  request.tenant = graph::TenantId(std::numeric_limits<uint32_t>::max());
  request.sampling.max_new_tokens = 1;
  request.sampling.ignore_eos = true;
  request.prompt = {0};
  request.canary = true;
  // A lane that is idle has room for one token.
  const Status taken = sequencer_.submit(std::move(request), now);
  CHECK(taken.ok());
  canary_runs_ = true;
}

graph::SequencerStats LaneServer::sequencer_stats() const {
  graph::SequencerStats stats = sequencer_.stats();
  if (!canary_runs_) return stats;
  if (stats.num_running > 0) {
    --stats.num_running;
    ++stats.num_free_blocks;
  } else {
    --stats.num_waiting;
  }
  return stats;
}

void LaneServer::detach(const DetachCommand& command) {
  for (const RequestId id : clients_.detach(command.client)) sequencer_.cancel(id);
}

Status LaneServer::check(uint64_t client, const rpc::GenerateRequest& request) const {
  RETURN_IF_ERROR(clients_.check(client, request.request_id));
  if (request.num_sequences < 1 || request.num_sequences > kSequencesMax)
    return make_error(ErrorCode::invalid_argument, "a request of {} sequences, the limit is {}",
                      request.num_sequences, kSequencesMax);
  return ok_status();
}

void LaneServer::submit(SubmitCommand command) {
  CHECK(clients_.has(command.client));
  for (rpc::GenerateRequest& request : command.requests) {
    const uint64_t request_id = request.request_id;
    const uint32_t first = request.sequence_index;
    const int32_t num_sequences = request.num_sequences;
    const RequestId id(++last_request_);
    Status taken = check(command.client, request);
    if (taken.ok()) taken = take_in(id, std::move(request));
    if (taken.ok())
      clients_.add(id, command.client, request_id, first, num_sequences);
    else
      clients_.refuse(command.client, request_id, first,
                      std::clamp(num_sequences, 1, kSequencesMax), taken.error());
  }
  flush();
  command.reply(Ok{});
}

Status LaneServer::take_in(RequestId id, rpc::GenerateRequest wire) {
  const TimePoint now = clock_.now();
  graph::Request request;
  request.id = id;
  request.tenant = graph::TenantId(wire.tenant);
  request.cache_salt = wire.cache_salt;
  request.priority = wire.priority;
  request.num_choices = wire.num_sequences;
  request.first_choice = wire.sequence_index;
  request.sampling = from_wire(wire.sampling);
  request.score = {.first_position = wire.score.first_position,
                   .full_path = std::move(wire.score.full_path)};
  request.prompt = std::move(wire.prompt);
  request.generated = std::move(wire.generated);
  request.readmitted = wire.readmitted;
  request.identity = wire.identity;
  if (wire.timeout_ns > 0)
    request.deadline = now + std::min(Duration(wire.timeout_ns), Duration(kTimeoutMax));
  return sequencer_.submit(std::move(request), now);
}

void LaneServer::cancel(CancelCommand command) {
  end(clients_.find(command.client, command.request_ids),
      make_error(ErrorCode::cancelled, "the request was cancelled"));
  flush();
  command.reply(Ok{});
}

void LaneServer::end(const std::vector<RequestId>& ids, const Error& why) {
  for (const RequestId id : ids) {
    sequencer_.cancel(id);
    clients_.end_all(id, why);
  }
}

void LaneServer::end_all(const Error& why) {
  end(clients_.all(), why);
  (void)clients_.flush(stats());
}

void LaneServer::flush(bool to_everyone) {
  const rpc::LaneStats now = stats();
  const std::vector<RequestId> refused = clients_.flush(now, to_everyone);
  if (refused.empty()) return;
  end(refused, make_error(ErrorCode::overloaded, "the client does not take its results"));
  (void)clients_.flush(now);  // the ends: these fit, or the client is gone
}

void LaneServer::deliver(const graph::Deliveries& deliveries) {
  for (const auto& [choice, token] : deliveries.tokens)
    clients_.token(choice.request, choice.index, to_wire(token));
  for (const auto& [choice, score] : deliveries.scores)
    clients_.score(choice.request, choice.index, to_wire(score));
  for (const auto& [choice, how] : deliveries.ended) {
    if (choice.request == kCanary) canary_runs_ = false;
    clients_.end(choice.request, choice.index,
                 how.ok() ? ok_status() : named(how.error(), plan_.model_path));
  }
  bool to_everyone = false;
  if (deliveries.crossed) {
    const TimePoint now = clock_.now();
    canary_.on_crossing(now);
    to_everyone = now - told_everyone_ >= kTellEveryone;
    if (to_everyone) told_everyone_ = now;
  }
  flush(to_everyone);
}

rpc::LaneReport LaneServer::report(graph::LaneId lane) const {
  const graph::SequencerStats now = sequencer_stats();
  return {.lane = lane.value,
          .num_running = now.num_running,
          .num_waiting = now.num_waiting,
          .num_kv_blocks = now.num_blocks,
          .num_free_kv_blocks = now.num_free_blocks};
}

rpc::LaneStats LaneServer::stats() {
  const graph::SequencerStats now = sequencer_stats();
  // A prompt's usual chunk, alone in its step.
  const int32_t chunk =
      plan_.prefill_chunk_tokens > 0 ? plan_.prefill_chunk_tokens : plan_.max_microbatch_tokens;
  graph::StepWork work;
  work.add(chunk, 0);
  const double step_s = sequencer_.step_cost().predict_s(work);
  return {.num_taken = 0,  // each client's own
          .num_free_blocks = now.num_free_blocks,
          .queue_room = plan_.max_queued - now.num_waiting,
          .waiting_tokens = now.waiting_tokens,
          .num_running = now.num_running,
          .tokens_per_s = step_s > 0 ? chunk / step_s : 0,
          .epoch = epoch_.value,
          .crossed_ago_ns =
              canary_.last_crossing() ? (clock_.now() - *canary_.last_crossing()).count() : -1};
}

}  // namespace chainpump::actors
