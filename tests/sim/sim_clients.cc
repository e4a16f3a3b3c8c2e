#include "tests/sim/sim_clients.h"

#include <algorithm>
#include <chrono>

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;
using fakes::KvChain;
using graph::Request;

constexpr int kAttemptsMax = 4;

}  // namespace

SimClients::SimClients(SimWorld& world, const Scenario& scenario,
                       const std::vector<std::unique_ptr<SimLane>>& lanes)
    : world_(world),
      scenario_(scenario),
      lanes_(lanes),
      router_({.num_lanes = scenario.num_lanes, .block_tokens = kBlockTokens}) {}

void SimClients::start() {
  num_open_ = scenario_.num_requests;
  for (int i = 0; i < scenario_.num_requests; ++i)
    world_.events.after(world_.random.up_to(scenario_.arrivals), [this] { ask(draw_request()); });
}

Request SimClients::draw_request() {
  Random& random = world_.random;
  Request request;
  request.id = RequestId(++last_request_);
  int tenant = random.pick(static_cast<int>(kTenants));
  // As many as its weight says, so that the tenants run out of them together.
  if (scenario_.saturated)
    tenant = static_cast<int>(last_request_ % 6 < 1 ? 0 : last_request_ % 6 < 3 ? 1 : 2);
  request.tenant = graph::TenantId(static_cast<uint32_t>(tenant));
  request.tenant_weight = 1 + tenant;
  request.cache_salt = static_cast<uint64_t>(tenant);
  request.sampling.seed = request.cache_salt << 32 | last_request_;
  request.sampling.temperature = 1;
  draw_prompt(request);
  if (scenario_.saturated) {
    request.sampling.max_new_tokens = 1 + random.pick(8);
    return request;
  }
  request.sampling.max_new_tokens = 1 + random.pick(random.chance(2) ? 120 : 14);
  request.sampling.ignore_eos = !random.chance(3);
  request.priority = random.chance(4) ? random.pick(3) - 1 : 0;
  if (random.chance(6)) request.deadline = world_.events.now() + random.up_to(40ms) + 1us;
  if (request.prompt.size() > 1 && random.chance(5)) {
    request.score.first_position = random.pick(static_cast<int>(request.prompt.size()) - 1);
  } else if (random.chance(3)) {
    request.num_choices = 2 + random.pick(2);
    request.first_choice = static_cast<uint32_t>(random.pick(2));
  }
  return request;
}

/// Few beginnings, so that prefixes are often equal, and differ at any place.
void SimClients::draw_prompt(Request& request) {
  Random& random = world_.random;
  const int longest = scenario_.saturated ? 8 : random.chance(3) ? 200 : 40;
  const int num_prompt = 1 + random.pick(longest);
  const int kind = scenario_.saturated ? random.pick(37) : random.pick(3);
  for (int i = 0; i < num_prompt; ++i) request.prompt.push_back((i * (3 + kind)) % kVocabulary);
  if (random.chance(2)) request.prompt[static_cast<size_t>(random.pick(num_prompt))] = 1;
}

void SimClients::ask(Request request) {
  const RequestId id = request.id;
  Asked& asked = asked_[id];
  for (int i = 0; i < request.num_choices; ++i) {
    Expected& choice = asked.choices[request.first_choice + static_cast<uint32_t>(i)];
    if (request.score.first_position >= 0)
      choice.scores =
          KvChain::expected_scores(request.prompt, request.score.first_position, kVocabulary);
    else
      choice.tokens = KvChain::expected_tokens(request, i, kContext, kVocabulary);
  }
  ++counts_.asked;
  world_.trace.line(world_.events.now(),
                    "request {} of tenant {}: prompt {}, generated {}, n {}, at most {}", id,
                    request.tenant, request.prompt.size(), request.generated.size(),
                    request.num_choices, request.sampling.max_new_tokens);
  asked.request = std::move(request);
  route(id);
  if (scenario_.cancel_in > 0 && world_.random.chance(scenario_.cancel_in))
    world_.events.after(world_.random.up_to(10ms), [this, id] { cancel(id); });
}

void SimClients::route(RequestId id) {
  Asked& asked = asked_.at(id);
  if (asked.ended) return;
  ++asked.attempts;
  std::vector<TokenId> known = asked.request.prompt;
  known.insert(known.end(), asked.request.generated.begin(), asked.request.generated.end());
  const Result<graph::Route> route = router_.route({.id = id,
                                                    .cache_salt = asked.request.cache_salt,
                                                    .prompt = known,
                                                    .num_choices = asked.request.num_choices});
  if (!route.ok()) return refused(asked, route.error(), 5ms);
  asked.lane = route->lane.value;
  world_.trace.line(world_.events.now(), "request {} goes to lane {}", id, *asked.lane);
  world_.events.after(
      scenario_.delay,
      [this, id, incarnation = lanes_[*asked.lane]->incarnation()] { arrive(id, incarnation); });
}

void SimClients::arrive(RequestId id, uint32_t incarnation) {
  Asked& asked = asked_.at(id);
  if (asked.ended || !asked.lane) return;
  SimLane& lane = *lanes_[*asked.lane];
  if (!lane.serving() || lane.incarnation() != incarnation) return;  // lane_ended() has told
  const Status taken = lane.submit(asked.request);
  asked.submitted = taken.ok();
  report(*asked.lane);
  if (!taken.ok()) refused(asked, taken.error(), lane.retry_after());
}

void SimClients::refused(Asked& asked, const Error& error, Duration retry_after) {
  const RequestId id = asked.request.id;
  world_.trace.line(world_.events.now(), "request {} is refused: {}", id, error.message);
  asked.lane.reset();
  router_.end(id);
  if (error.code == ErrorCode::deadline_exceeded) return end(asked, counts_.late);
  if (error.code != ErrorCode::overloaded) return world_.fail("request {}: {}", id, error.message);
  if (asked.attempts == kAttemptsMax) return end(asked, counts_.overloaded);
  world_.events.after(retry_after, [this, id] { route(id); });
}

void SimClients::cancel(RequestId id) {
  Asked& asked = asked_.at(id);
  if (asked.ended) return;
  if (asked.choices.size() > 1 && asked.submitted && world_.random.chance(2))
    return cancel_choice(asked);
  world_.trace.line(world_.events.now(), "request {} is cancelled", id);
  if (asked.submitted) lanes_[*asked.lane]->cancel(id, asked.request.sampling.seed);
  for (auto& [index, choice] : asked.choices) choice.ended = true;
  end(asked, counts_.cancelled);
}

void SimClients::cancel_choice(Asked& asked) {
  auto choice = asked.choices.begin();
  std::advance(choice, world_.random.pick(static_cast<int>(asked.choices.size())));
  world_.trace.line(world_.events.now(), "request {} choice {} is cancelled", asked.request.id,
                    choice->first);
  lanes_[*asked.lane]->cancel(asked.request.id, choice->first);
  choice->second.ended = true;
  end_if_all_have(asked);
}

void SimClients::end(Asked& asked, int& counter) {
  asked.ended = true;
  ++counter;
  --num_open_;
  router_.end(asked.request.id);
}

void SimClients::end_if_all_have(Asked& asked) {
  const bool all = std::all_of(asked.choices.begin(), asked.choices.end(),
                               [](const auto& entry) { return entry.second.ended; });
  if (all && !asked.ended) end(asked, counts_.completed);
}

SimClients::Expected* SimClients::find(const graph::Choice& choice) {
  const auto found = asked_.find(choice.request);
  const bool known = found != asked_.end() && found->second.choices.contains(choice.index);
  if (known && !found->second.choices.at(choice.index).ended)
    return &found->second.choices.at(choice.index);
  world_.fail("something comes for choice {} of request {}, which has ended", choice.index,
              choice.request);
  return nullptr;
}

void SimClients::take(const graph::Deliveries& out) {
  for (const graph::TokenDelivery& token : out.tokens) {
    Expected* choice = find(token.choice);
    if (choice == nullptr) return;
    graph::TokenResult wanted = choice->num_tokens < choice->tokens.size()
                                    ? choice->tokens[choice->num_tokens++]
                                    : graph::TokenResult{};
    wanted.id = token.token.id;
    if (!(wanted == token.token))
      return world_.fail("request {} choice {}: token {} at {}, alone it gets {} at {}",
                         token.choice.request, token.choice.index, token.token.token,
                         token.token.position, wanted.token, wanted.position);
  }
  for (const graph::ScoreDelivery& score : out.scores) {
    Expected* choice = find(score.choice);
    if (choice == nullptr) return;
    graph::ScoreResult wanted = choice->num_scores < choice->scores.size()
                                    ? choice->scores[choice->num_scores++]
                                    : graph::ScoreResult{};
    wanted.id = score.score.id;
    if (!(wanted == score.score))
      return world_.fail("request {}: a wrong score of position {}", score.choice.request,
                         score.score.position);
  }
  for (const graph::EndDelivery& ended : out.ended) {
    Expected* choice = find(ended.choice);
    if (choice == nullptr) return;
    Asked& asked = asked_.at(ended.choice.request);
    choice->ended = true;
    world_.trace.line(world_.events.now(), "request {} choice {} ends: {}", ended.choice.request,
                      ended.choice.index,
                      ended.how.ok() ? to_string(*ended.how) : to_string(ended.how.error().code));
    if (!ended.how.ok()) {
      if (ended.how.error().code != ErrorCode::deadline_exceeded || !asked.request.deadline ||
          *asked.request.deadline > world_.events.now())
        return world_.fail("request {}: {}", ended.choice.request, ended.how.error().message);
    } else if (choice->num_tokens != choice->tokens.size() ||
               choice->num_scores != choice->scores.size() ||
               *ended.how != (choice->tokens.empty() ? graph::FinishReason::stop
                                                     : choice->tokens.back().finish)) {
      return world_.fail("request {} choice {} ends too early, or not as it does alone",
                         ended.choice.request, ended.choice.index);
    }
    end_if_all_have(asked);
  }
  for (size_t lane = 0; lane < lanes_.size(); ++lane)
    if (!out.ended.empty()) report(lane);
}

/// What a lane says of itself reaches the router after a while.
void SimClients::report(size_t lane) {
  if (!lanes_[lane]->serving()) return;
  world_.events.after(scenario_.delay, [this, lane, stats = lanes_[lane]->stats(),
                                        incarnation = lanes_[lane]->incarnation()] {
    if (lanes_[lane]->serving() && lanes_[lane]->incarnation() == incarnation)
      router_.on_stats(graph::LaneId(static_cast<uint8_t>(lane)), stats);
  });
}

void SimClients::lane_started(size_t lane) {
  router_.set_state(graph::LaneId(static_cast<uint8_t>(lane)), graph::LaneState::serving);
}

void SimClients::lane_ended(size_t lane) {
  router_.set_state(graph::LaneId(static_cast<uint8_t>(lane)), graph::LaneState::dead);
  std::vector<RequestId> told;
  for (auto& [id, asked] : asked_)
    if (!asked.ended && asked.lane == lane) told.push_back(id);
  for (const RequestId id : told) {
    Asked& asked = asked_.at(id);
    if (world_.plant == Plant::end_of_lane_forgotten && !asked.submitted) continue;
    world_.trace.line(world_.events.now(), "request {} ends: disconnected", id);
    const bool goes_on = asked.choices.size() == 1 && world_.random.chance(2) &&
                         asked.request.score.first_position < 0;
    for (auto& [index, choice] : asked.choices) choice.ended = true;
    if (goes_on) ++num_open_;
    end(asked, counts_.disconnected);
    if (goes_on) go_on(asked);
  }
}

/// The client asks for the rest, with what it has got.
void SimClients::go_on(const Asked& asked) {
  Request rest = asked.request;
  rest.id = RequestId(++last_request_);
  const Expected& choice = asked.choices.begin()->second;
  for (size_t i = 0; i < choice.num_tokens; ++i) rest.generated.push_back(choice.tokens[i].token);
  world_.events.after(1ms, [this, rest = std::move(rest)]() mutable { ask(std::move(rest)); });
}

void SimClients::check_end() const {
  for (const auto& [id, asked] : asked_)
    if (!asked.ended) return world_.fail("request {} did not end", id);
  if (num_open_ != 0 || router_.num_requests() != 0)
    world_.fail("{} requests are open, the router knows of {}", num_open_, router_.num_requests());
}

}  // namespace chainpump::sim
