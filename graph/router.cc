#include "graph/router.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/check.h"
#include "graph/token_hash.h"

namespace chainpump::graph {
namespace {

// Predictions are no better than that.
constexpr double kAlikeShare = 0.05;
constexpr double kAlikeS = 1e-3;
// A lane that has said nothing since so many requests is not to be given more.
constexpr size_t kMaxUnseen = 4096;

}  // namespace

Router::Router(const RouterOptions& options)
    : options_(options), memory_(options.max_remembered_blocks) {
  CHECK_GT(options.num_lanes, 0);
  CHECK_LE(options.num_lanes, static_cast<int32_t>(kMaxLanes));
  CHECK_GT(options.block_tokens, 0);
  CHECK_MSG(options.tokens_per_s_prior > 0, "{}", options.tokens_per_s_prior);
  lanes_.resize(static_cast<size_t>(options.num_lanes));
}

const Router::Lane& Router::lane_at(LaneId lane) const {
  CHECK_LT(static_cast<size_t>(lane.value), lanes_.size());
  return lanes_[lane.value];
}

Router::Lane& Router::lane_at(LaneId lane) {
  CHECK_LT(static_cast<size_t>(lane.value), lanes_.size());
  return lanes_[lane.value];
}

void Router::set_state(LaneId id, LaneState state) {
  Lane& lane = lane_at(id);
  if (state == LaneState::dead && lane.state != LaneState::dead) {
    lane = Lane{};
    memory_.forget(id.value);
    std::erase_if(requests_, [&](const auto& entry) { return entry.second == id; });
  }
  lane.state = state;
}

// Stats of a lane that is dead were on their way when it died. A count that is impossible (a lane
// is another process) is taken for what it can be at most.
void Router::on_stats(LaneId id, const LaneStats& stats) {
  Lane& lane = lane_at(id);
  if (lane.state == LaneState::dead) return;
  lane.reported = true;
  lane.stats = stats;
  const uint64_t num_taken = std::min(stats.num_taken, lane.num_routed);
  while (lane.num_routed - lane.unseen.size() < num_taken) {
    const Load& seen = lane.unseen.front();
    lane.unseen_sum.tokens -= seen.tokens;
    lane.unseen_sum.blocks -= seen.blocks;
    lane.unseen_sum.sequences -= seen.sequences;
    lane.unseen.pop_front();
  }
}

// As the sequencer does, leaves one token at least to compute.
std::vector<uint64_t> Router::chain_of(const RouteRequest& request) const {
  const auto block_tokens = static_cast<size_t>(options_.block_tokens);
  const size_t num_blocks = request.prompt.empty() ? 0 : (request.prompt.size() - 1) / block_tokens;
  std::vector<uint64_t> chain(num_blocks);
  uint64_t before = request.cache_salt;
  for (size_t i = 0; i < num_blocks; ++i)
    before = chain[i] =
        chained_hash(before, request.prompt.subspan(i * block_tokens, block_tokens));
  return chain;
}

Router::Candidate Router::weigh(size_t index, const RouteRequest& request,
                                int32_t num_blocks_seen) const {
  const Lane& lane = lanes_[index];
  Candidate result;
  result.lane = index;
  result.tokens_hit = num_blocks_seen * options_.block_tokens;
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  result.load.tokens = prompt_tokens - result.tokens_hit;
  result.load.blocks = static_cast<int32_t>((result.load.tokens + options_.block_tokens) /
                                            options_.block_tokens);  // and a token more
  result.load.sequences = request.num_choices;
  const double rate =
      lane.stats.tokens_per_s > 0 ? lane.stats.tokens_per_s : options_.tokens_per_s_prior;
  const int64_t tokens = lane.stats.waiting_tokens + lane.unseen_sum.tokens + result.load.tokens;
  result.first_token_s = static_cast<double>(tokens) / rate;
  if (lane.reported) {
    const int64_t room = int64_t{lane.stats.num_free_blocks} - lane.unseen_sum.blocks;
    const int64_t missing = std::max<int64_t>(result.load.blocks - room, 0);
    result.first_token_s += static_cast<double>(missing * options_.block_tokens) / rate;
    result.full = lane.stats.queue_room - lane.unseen_sum.sequences < request.num_choices;
  }
  result.num_running = lane.stats.num_running + lane.unseen_sum.sequences;
  result.turn = lane.turn;
  return result;
}

const Router::Candidate& Router::best_of(const std::vector<Candidate>& candidates) {
  const auto by_time = [](const Candidate& c) { return std::tuple(c.full, c.first_token_s); };
  const Candidate& first = *std::min_element(
      candidates.begin(), candidates.end(),
      [&](const Candidate& a, const Candidate& b) { return by_time(a) < by_time(b); });
  const double alike_s = first.first_token_s * (1 + kAlikeShare) + kAlikeS;
  const auto by_rank = [&](const Candidate& c) {
    const bool alike = c.full == first.full && c.first_token_s <= alike_s;
    return std::tuple(!alike, c.num_running, c.turn, c.lane);
  };
  return *std::min_element(
      candidates.begin(), candidates.end(),
      [&](const Candidate& a, const Candidate& b) { return by_rank(a) < by_rank(b); });
}

Result<Route> Router::route(const RouteRequest& request) {
  const std::vector<uint64_t> chain = chain_of(request);
  const auto num_seen = memory_.num_seen(chain);
  if (const auto known = lane_of(request.id)) {
    const Candidate kept = weigh(known->value, request, num_seen[known->value]);
    return Route{*known, kept.tokens_hit, kept.first_token_s};
  }
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < lanes_.size(); ++i)
    if (lanes_[i].state == LaneState::serving && lanes_[i].unseen.size() < kMaxUnseen)
      candidates.push_back(weigh(i, request, num_seen[i]));
  if (candidates.empty()) return none_serves();
  const Candidate& best = best_of(candidates);

  Lane& lane = lanes_[best.lane];
  lane.turn = ++last_turn_;
  ++lane.num_routed;
  lane.unseen.push_back(best.load);
  lane.unseen_sum.tokens += best.load.tokens;
  lane.unseen_sum.blocks += best.load.blocks;
  lane.unseen_sum.sequences += best.load.sequences;
  memory_.remember(chain, best.lane);
  const LaneId id(static_cast<uint8_t>(best.lane));
  requests_[request.id] = id;
  return Route{id, best.tokens_hit, best.first_token_s};
}

Error Router::none_serves() const {
  size_t num_draining = 0;
  size_t num_silent = 0;
  for (const Lane& lane : lanes_) {
    if (lane.state == LaneState::draining) ++num_draining;
    if (lane.state == LaneState::serving) ++num_silent;
  }
  return make_error(ErrorCode::overloaded,
                    "no lane takes requests now: of {}, {} drain, {} do not answer, {} are not up; "
                    "retry after 1 s",
                    lanes_.size(), num_draining, num_silent,
                    lanes_.size() - num_draining - num_silent);
}

std::optional<LaneId> Router::lane_of(RequestId id) const {
  const auto found = requests_.find(id);
  return found == requests_.end() ? std::nullopt : std::optional(found->second);
}

void Router::end(RequestId id) { requests_.erase(id); }

}  // namespace chainpump::graph
