// Which lane a request goes to: the one that will have its first token first, by what the lanes say
// of themselves and by what this router has sent them since. A request stays where it is.
//
//   lane state   gets new requests   keeps its own   what ends it
//   dead         no                  no              set_state(serving): a new incarnation
//   serving      yes                 yes             set_state
//   draining     no                  yes             set_state
//
// Predicted time to the first token of a request on a lane:
//   (waiting tokens + prompt tokens not hit) / tokens per second, plus, if the lane lacks KV room,
//   (missing blocks * block tokens) / tokens per second: in the long run a lane frees as many
//   positions as it computes.
// Waiting and missing count what was routed there and is not in its stats yet, so that a burst
// between two reports is spread. Lanes that are as good (within 5 % or 1 ms) are told apart by how
// many sequences they run, then take turns. A lane whose queue is full comes after all others.
// Pure; one thread. O(lanes + blocks of the prompt). Sends nothing itself.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "graph/plan.h"
#include "graph/prefix_memory.h"

namespace chainpump::graph {

enum class LaneState : uint8_t { dead, serving, draining };

/// What a lane says of itself, with its results.
struct LaneStats {
  uint64_t num_taken = 0;  // requests of this router that it had been given, in this incarnation
  int32_t num_free_blocks = 0;  // cached ones among them
  int32_t queue_room = 0;       // sequences that it would still queue
  int64_t waiting_tokens = 0;   // of prompts, not computed yet
  int32_t num_running = 0;      // sequences
  double tokens_per_s = 0;      // that it could take in, by its step costs; 0: not known yet
};

struct RouterOptions {
  int32_t num_lanes = 0;
  int32_t block_tokens = 0;
  size_t max_remembered_blocks = 1 << 16;
  double tokens_per_s_prior = 1000;  // the plan's prediction, until a lane knows better
};

struct RouteRequest {
  RequestId id;
  uint64_t cache_salt = 0;
  std::span<const TokenId> prompt;  // with what was generated, if it is resumed
  int32_t num_choices = 1;
};

struct Route {
  LaneId lane;
  int32_t tokens_hit = 0;    // of the prompt, as far as is remembered
  double first_token_s = 0;  // as predicted
};

class Router {
 public:
  explicit Router(const RouterOptions& options);

  /// Lanes are dead at first. A lane that dies loses its requests, its stats and what is remembered
  /// of it.
  void set_state(LaneId lane, LaneState state);
  LaneState state(LaneId lane) const { return lane_at(lane).state; }
  void on_stats(LaneId lane, const LaneStats& stats);

  /// Chooses a lane and counts the request as given to it; one that has a lane keeps it (nothing
  /// is counted again). overloaded if no lane takes new requests: none serves, or none of them has
  /// said a word since thousands.
  Result<Route> route(const RouteRequest& request);
  /// Where it is, if it is anywhere.
  std::optional<LaneId> lane_of(RequestId id) const;
  /// It ended or was refused: forget where it was.
  void end(RequestId id);
  size_t num_requests() const { return requests_.size(); }

 private:
  // What one request adds to a lane until the lane's own stats count it.
  struct Load {
    int64_t tokens = 0;
    int32_t blocks = 0;
    int32_t sequences = 0;
  };
  struct Lane {
    LaneState state = LaneState::dead;
    LaneStats stats;
    bool reported = false;
    uint64_t num_routed = 0;  // in this incarnation
    std::deque<Load> unseen;  // of the last of those
    Load unseen_sum;
    uint64_t turn = 0;
  };
  struct Candidate {
    size_t lane = 0;
    bool full = false;
    double first_token_s = 0;
    int32_t num_running = 0;
    uint64_t turn = 0;
    Load load;
    int32_t tokens_hit = 0;
  };

  const Lane& lane_at(LaneId lane) const;
  Lane& lane_at(LaneId lane);
  std::vector<uint64_t> chain_of(const RouteRequest& request) const;
  Candidate weigh(size_t index, const RouteRequest& request, int32_t num_blocks_seen) const;
  static const Candidate& best_of(const std::vector<Candidate>& candidates);
  Error none_serves() const;

  RouterOptions options_;
  std::vector<Lane> lanes_;
  std::unordered_map<RequestId, LaneId> requests_;
  PrefixMemory memory_;
  uint64_t last_turn_ = 0;
};

}  // namespace chainpump::graph
