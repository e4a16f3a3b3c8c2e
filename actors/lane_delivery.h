// One sequence's way to its caller: what it was asked, what has been told of it, and so what is
// needed to have it go on where an earlier first rank of its lane left off. By the one law the
// tokens that follow are those that would have followed.
//
// Thread rule: one at a time, in its lane's turn (actors/lane.h).
#pragma once

#include <memory>
#include <vector>

#include "actors/runtime.h"
#include "base/clock.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

/// A request as its caller gave it, for as long as one of its sequences has not ended.
struct LaneRequest {
  RequestId id;
  uint64_t identity = 0;  // that ranks know it by, as graph/request.h says
  SequenceRequest what;
  TimePoint deadline;

  bool scoring() const { return what.score.first_position >= 0; }
  /// All of it, under a number of the connection's, as if for the first time.
  rpc::GenerateRequest wire(uint64_t wire_id, TimePoint now) const;
};

class LaneDelivery {
 public:
  LaneDelivery(std::shared_ptr<const LaneRequest> request, uint32_t index,
               SequenceCallbacks callbacks);

  const std::shared_ptr<const LaneRequest>& request() const { return request_; }

  /// What does not follow on what was told before is not told: it makes the end an error. A score
  /// that was told before is passed over.
  void take(const rpc::TokenResult& token);
  void take(const rpc::ScoreResult& score);
  /// Whether the last of it was told, or can no longer be.
  bool is_over() const { return complete_ || torn_; }
  /// To another lane: not while its scores go to a file, which one stage has open.
  bool may_move() const { return request_->what.score.full_path.empty(); }
  /// The end, as far as it is known here whether it can be true.
  Result<Ok> checked(Result<Ok> end) const;
  void tell_end(Result<Ok> end) const { callbacks_.on_end(std::move(end)); }

  /// This sequence alone, with what was told of it, for a rank that knows nothing of it. Scores
  /// that go to a file begin anew with the file. Not if it is over.
  rpc::GenerateRequest again(uint64_t wire_id, TimePoint now) const;

  // By the lane, under its lock:
  bool given = false;          // to a first rank, which may have taken it in
  bool cancelled = false;      // somebody asked for its end
  bool cancel_passed = false;  // and the present rank was told

 private:
  int32_t last_position() const;

  const std::shared_ptr<const LaneRequest> request_;
  const uint32_t index_;
  const SequenceCallbacks callbacks_;
  std::vector<TokenId> tokens_;  // told, here or before
  int32_t next_position_;        // of a token, or of a score
  bool complete_ = false;
  bool torn_ = false;
};

}  // namespace chainpump::actors
