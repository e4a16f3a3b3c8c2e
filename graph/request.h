// What the sequencer takes and what it gives back, in the words of who asked: requests and their
// choices. Plain data; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/fair_queue.h"
#include "graph/microbatch.h"

namespace chainpump::graph {

/// One prompt, and `num_choices` sequences that go on from it, with the indices
/// [first_choice, first_choice + num_choices).
struct Request {
  RequestId id;  // the caller's; unique among those it has here
  TenantId tenant;
  uint64_t cache_salt = 0;   // requests share cached prefixes only if their salts are equal
  double tenant_weight = 1;  // of its tenant's, > 0; the last one given counts
  int32_t priority = 0;      // higher goes first
  std::optional<TimePoint> deadline;
  int32_t num_choices = 1;
  uint32_t first_choice = 0;
  SamplingParams sampling;
  ScoreParams score;  // scoring has one choice
  std::vector<TokenId> prompt;
  std::vector<TokenId> generated;  // before this incarnation; only with one choice
  // A sequencer that is no more had taken it in: it may wait beyond max_queued, for as many as run.
  bool readmitted = false;
  // What it is recognised by when it is asked for again: random, the same then, nobody else's. 0:
  // by nothing.
  uint64_t identity = 0;
  // Nobody's, and like any other but for what is counted and learned: it shows that a token gets
  // through (graph/health.h). Shorter than a block, so that nothing of it is cached.
  bool canary = false;
};

/// Which sequence of which request.
struct Choice {
  RequestId request;
  uint32_t index = 0;
  bool operator==(const Choice&) const = default;
};
struct TokenDelivery {
  Choice choice;
  TokenResult token;
};
struct ScoreDelivery {
  Choice choice;
  ScoreResult score;
};
/// Nothing comes for the choice after this. deadline_exceeded if time ran out, internal if its
/// logits were not finite numbers: the message says where.
struct EndDelivery {
  Choice choice;
  Result<FinishReason> how;
};

/// What there is to pass on, each kind in order; a choice's tokens and scores go before its end.
struct Deliveries {
  std::vector<TokenDelivery> tokens;
  std::vector<ScoreDelivery> scores;
  std::vector<EndDelivery> ended;
  bool crossed = false;  // some token has passed all stages
  void clear() {
    crossed = false;
    tokens.clear();
    scores.clear();
    ended.clear();
  }
};

}  // namespace chainpump::graph
