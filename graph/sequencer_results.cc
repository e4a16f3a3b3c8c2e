// What the results of microbatches mean for the sequences in them.
#include <algorithm>

#include "base/check.h"
#include "graph/sequencer.h"

namespace chainpump::graph {
namespace {

/// `position`: of the token whose logits they were.
Error not_finite(int32_t position) {
  return make_error(ErrorCode::internal,
                    "the model's numbers are not finite (logits at position {})", position);
}

}  // namespace

Status Sequencer::on_result(const StepResult& result, TimePoint now, Deliveries& out) {
  if (in_flight_.empty() || in_flight_.front().id != result.id)
    return make_error(ErrorCode::internal, "result of microbatch {} came out of order", result.id);
  InFlight done = std::move(in_flight_.front());
  in_flight_.pop_front();
  num_decodes_in_flight_ -= done.num_decodes;
  if (done.num_decodes > 0) --num_decode_microbatches_;
  slowest_stage_ = result.slowest_stage;
  out.crossed |= done.crosses;
  if (result.slowest > Duration(0) && done.work.tokens > 0)
    cost_.observe(done.work, result.slowest);
  const size_t ended_before = out.ended.size();
  const size_t num_tokens = result.tokens.size();
  for (size_t i = 0; i < num_tokens; ++i) {
    if (i + SequenceStore::kAhead < num_tokens)
      store_.prefetch(result.tokens[i + SequenceStore::kAhead].id);
    RETURN_IF_ERROR(take_token(result.tokens[i], out));
  }
  for (const ScoreResult& score : result.scores) RETURN_IF_ERROR(take_score(score, out));
  for (size_t i = 0; i < done.members.size(); ++i) {
    if (i + SequenceStore::kAhead < done.members.size())
      store_.prefetch(done.members[i + SequenceStore::kAhead]);
    Sequence* sequence = store_.find(done.members[i]);
    if (sequence == nullptr) continue;  // ended meanwhile
    --sequence->num_in_flight;
    if (sequence->state != Sequence::State::drained || sequence->num_in_flight > 0) continue;
    enqueue(*sequence, true);
  }
  done.members.clear();
  spare_members_.push_back(std::move(done.members));
  note_ends(out.ended.size() - ended_before, now);
  return ok_status();
}

/// Of a sequence that was preempted meanwhile as well: what was under way still counts.
Status Sequencer::take_token(const TokenResult& token, Deliveries& out) {
  Sequence* sequence = store_.find(token.id);
  if (sequence == nullptr) return ok_status();  // cancelled meanwhile
  if (token.position != sequence->tokens.size() || sequence->num_pending() != 0 ||
      sequence->scoring)
    return make_error(ErrorCode::internal,
                      "sequence {}: a token for position {}, of {} known and {} sent", token.id,
                      token.position, sequence->tokens.size(), sequence->num_sent);
  const Choice choice{sequence->request_id, sequence->index};
  if (token.finish == FinishReason::failed) {
    out.ended.push_back({choice, not_finite(token.position - 1)});
    end(*sequence);
    return ok_status();
  }
  sequence->tokens.push_back(token.token);
  ++sequence->num_needed;
  ++counters_.tokens_generated;
  out.tokens.push_back({choice, token});
  if (token.finish != FinishReason::none) {
    out.ended.push_back({choice, token.finish});
    end(*sequence);
    return ok_status();
  }
  if (sequence->state == Sequence::State::running) ready_.push_back(sequence->id);
  return ok_status();
}

/// A preempted sequence is scored again from its first position on, for the file's sake; what was
/// delivered is not delivered again.
Status Sequencer::take_score(const ScoreResult& score, Deliveries& out) {
  Sequence* sequence = store_.find(score.id);
  if (sequence == nullptr) return ok_status();
  if (!sequence->scoring || score.position > sequence->next_score)
    return make_error(ErrorCode::internal, "sequence {}: a score of position {}, not of {}",
                      score.id, score.position, sequence->next_score);
  if (score.position < sequence->next_score) return ok_status();
  const Choice choice{sequence->request_id, sequence->index};
  if (score.failed) {
    out.ended.push_back({choice, not_finite(score.position)});
    end(*sequence);
    return ok_status();
  }
  ++sequence->next_score;
  out.scores.push_back({choice, score});
  if (sequence->next_score < sequence->num_needed) return ok_status();
  out.ended.push_back({choice, FinishReason::stop});
  end(*sequence);
  return ok_status();
}

/// How fast places become free while others wait for them: what a refused client is told.
void Sequencer::note_ends(size_t count, TimePoint now) {
  if (count == 0) return;
  if (last_end_ && num_waiting_ > 0) {
    const double interval = to_seconds(now - *last_end_) / static_cast<double>(count);
    end_interval_s_ = end_interval_s_ == 0 ? interval : 0.9 * end_interval_s_ + 0.1 * interval;
  }
  last_end_ = now;
}

}  // namespace chainpump::graph
