#include "actors/lane_delivery.h"

#include <algorithm>

#include "actors/convert.h"
#include "base/check.h"

namespace chainpump::actors {

rpc::GenerateRequest LaneRequest::wire(uint64_t wire_id, TimePoint now) const {
  rpc::GenerateRequest wire;
  wire.request_id = wire_id;
  wire.sequence_index = what.sequence_index;
  wire.prompt = what.prompt;
  wire.sampling = to_wire(what.sampling);
  wire.score = {.first_position = what.score.first_position, .full_path = what.score.full_path};
  wire.timeout_ns = std::max(deadline - now, Duration(1)).count();
  wire.num_sequences = what.num_sequences;
  wire.tenant = what.tenant.value;
  wire.cache_salt = what.cache_salt;
  wire.priority = what.priority;
  wire.generated = what.generated;
  wire.identity = identity;
  return wire;
}

LaneDelivery::LaneDelivery(std::shared_ptr<const LaneRequest> request, uint32_t index,
                           SequenceCallbacks callbacks)
    : request_(std::move(request)),
      index_(index),
      callbacks_(std::move(callbacks)),
      tokens_(request_->what.generated),
      next_position_(request_->scoring()
                         ? request_->what.score.first_position
                         : static_cast<int32_t>(request_->what.prompt.size() + tokens_.size())) {}

void LaneDelivery::take(const rpc::TokenResult& token) {
  torn_ |= complete_ || token.position != next_position_;
  if (torn_) return;
  ++next_position_;
  tokens_.push_back(token.token);
  complete_ = token.finish != rpc::FinishReason::none;
  callbacks_.on_token(from_wire(token));
}

void LaneDelivery::take(const rpc::ScoreResult& score) {
  torn_ |= score.position > next_position_;
  if (torn_ || score.position < next_position_) return;
  complete_ = next_position_++ == last_position();
  callbacks_.on_score(from_wire(score));
}

/// Whose next token is scored: that is the prompt's last.
int32_t LaneDelivery::last_position() const {
  return static_cast<int32_t>(request_->what.prompt.size()) - 2;
}

Result<Ok> LaneDelivery::checked(Result<Ok> end) const {
  if (!end.ok() || (complete_ && !torn_)) return end;
  return make_error(ErrorCode::internal,
                    "{} were lost on the way from the first stage: the answer breaks off at "
                    "position {}",
                    request_->scoring() ? "scores" : "tokens", next_position_);
}

rpc::GenerateRequest LaneDelivery::again(uint64_t wire_id, TimePoint now) const {
  CHECK(!is_over());
  rpc::GenerateRequest wire = request_->wire(wire_id, now);
  wire.sequence_index = index_;
  wire.num_sequences = 1;
  wire.readmitted = true;
  if (!request_->scoring())
    wire.generated = tokens_;
  else if (wire.score.full_path.empty())
    wire.score.first_position = next_position_;
  return wire;
}

}  // namespace chainpump::actors
