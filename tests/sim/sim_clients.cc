#include "tests/sim/sim_clients.h"

#include <algorithm>
#include <chrono>

namespace chainpump::sim {
namespace {

using namespace std::chrono_literals;
using fakes::KvChain;
using graph::Request;

constexpr int kRefusalsMax = 4;

}  // namespace

SimClients::SimClients(SimWorld& world, const Scenario& scenario, SimGateway& gateway)
    : world_(world), scenario_(scenario), gateway_(gateway) {}

// -------------------------------------------------------------------------------- the load

void SimClients::start() {
  for (; num_drawn_ < scenario_.num_at_first; ++num_drawn_)
    world_.after(world_.random.up_to(scenario_.arrivals), [this] { ask_new(); });
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
  if (random.chance(6)) request.deadline = world_.now() + random.up_to(40ms) + 1us;
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

void SimClients::ask_new() {
  Request request = draw_request();
  const RequestId id = request.id;
  Asked& asked = asked_[id];
  for (int i = 0; i < request.num_choices; ++i) {
    Choice& choice = asked.choices[request.first_choice + static_cast<uint32_t>(i)];
    if (request.score.first_position >= 0)
      choice.scores =
          KvChain::expected_scores(request.prompt, request.score.first_position, kVocabulary);
    else
      choice.tokens = KvChain::expected_tokens(request, i, kContext, kVocabulary);
  }
  ++counts_.asked;
  ++num_open_;
  world_.say("request {} of tenant {}: prompt {}, n {}, at most {}", id, request.tenant,
             request.prompt.size(), request.num_choices, request.sampling.max_new_tokens);
  asked.request = std::move(request);
  if (scenario_.cancel_in > 0 && world_.random.chance(scenario_.cancel_in))
    world_.after(world_.random.up_to(10ms), [this, id] { cancel(id); });
  ask(id);
}

/// Of what has begun each choice alone, from where it is.
void SimClients::ask(RequestId id) {
  Asked& asked = asked_.at(id);
  if (asked.ended || !gateway_.is_alive()) return;  // gateway_back() asks again
  ++asked.attempt;
  asked.at_gateway.clear();
  const bool whole = std::none_of(
      asked.choices.begin(), asked.choices.end(),
      [](const auto& entry) { return entry.second.ended || entry.second.has_begun(); });
  if (whole) return submit(id, asked.request);
  std::vector<Request> parts;
  for (const auto& [index, choice] : asked.choices) {
    if (choice.ended) continue;
    Request part = asked.request;
    part.first_choice = index;
    part.num_choices = 1;
    for (size_t i = 0; i < choice.num_tokens; ++i) part.generated.push_back(choice.tokens[i].token);
    if (part.score.first_position >= 0)
      part.score.first_position += static_cast<int32_t>(choice.num_scores);
    parts.push_back(std::move(part));
  }
  for (Request& part : parts) submit(id, std::move(part));
}

void SimClients::submit(RequestId id, Request request) {
  Asked& asked = asked_.at(id);
  request.id = RequestId(++last_given_);
  asked.at_gateway.push_back(request.id);
  const auto mine = [this, id, attempt = asked.attempt] {
    const Asked& now = asked_.at(id);
    return !now.ended && now.attempt == attempt;
  };
  gateway_.submit(std::move(request),
                  {.on_token =
                       [this, id, mine](uint32_t index, const graph::TokenResult& token) {
                         if (mine()) on_token(id, index, token);
                       },
                   .on_score =
                       [this, id, mine](uint32_t index, const graph::ScoreResult& score) {
                         if (mine()) on_score(id, index, score);
                       },
                   .on_end =
                       [this, id, mine](uint32_t index, Result<graph::FinishReason> how) {
                         if (mine()) on_end(id, index, how);
                       }});
}

void SimClients::gateway_died() {
  for (auto& [id, asked] : asked_) ++asked.attempt;  // what an earlier one says is for nobody
}

void SimClients::gateway_back() {
  for (auto& [id, asked] : asked_) {
    if (asked.ended) continue;
    ++counts_.again;
    world_.after(world_.random.up_to(5ms), [this, id = id, attempt = asked.attempt] {
      if (asked_.at(id).attempt == attempt) ask(id);
    });
  }
}

// -------------------------------------------------------------------------------- what comes

void SimClients::on_token(RequestId id, uint32_t index, const graph::TokenResult& token) {
  Choice& choice = asked_.at(id).choices.at(index);
  if (choice.ended) return world_.fail("request {} choice {}: a token after its end", id, index);
  graph::TokenResult wanted = choice.num_tokens < choice.tokens.size()
                                  ? choice.tokens[choice.num_tokens++]
                                  : graph::TokenResult{};
  wanted.id = token.id;
  if (!(wanted == token))
    world_.fail("request {} choice {}: token {} at {}, alone it gets {} at {}", id, index,
                token.token, token.position, wanted.token, wanted.position);
}

void SimClients::on_score(RequestId id, uint32_t index, const graph::ScoreResult& score) {
  Choice& choice = asked_.at(id).choices.at(index);
  graph::ScoreResult wanted = choice.num_scores < choice.scores.size()
                                  ? choice.scores[choice.num_scores++]
                                  : graph::ScoreResult{};
  wanted.id = score.id;
  if (!(wanted == score))
    world_.fail("request {}: a wrong score of position {}", id, score.position);
}

void SimClients::on_end(RequestId id, uint32_t index, const Result<graph::FinishReason>& how) {
  Asked& asked = asked_.at(id);
  Choice& choice = asked.choices.at(index);
  if (choice.ended) return world_.fail("request {} choice {} ends twice", id, index);
  if (!how.ok() && how.error().code == ErrorCode::overloaded) return refused(asked);
  world_.say("request {} choice {} ends: {}", id, index,
             how.ok() ? to_string(*how) : to_string(how.error().code));
  choice.ended = true;
  const std::optional<TimePoint> deadline = asked.request.deadline;
  if (how.ok()) {
    if (choice.num_tokens != choice.tokens.size() || choice.num_scores != choice.scores.size() ||
        *how != (choice.tokens.empty() ? graph::FinishReason::stop : choice.tokens.back().finish))
      return world_.fail("request {} choice {} ends too early, or not as it does alone", id, index);
  } else if (deployment_failed_) {
    return end(asked, counts_.failed);
  } else if (how.error().code != ErrorCode::deadline_exceeded || !deadline ||
             *deadline > world_.now()) {
    return world_.fail("request {}: {}", id, how.error().message);
  } else {
    return end(asked, counts_.late);
  }
  end_if_all_have(asked);
}

/// Comes again a few times; what has begun comes again until it is let in.
void SimClients::refused(Asked& asked) {
  const RequestId id = asked.request.id;
  const bool begun = std::any_of(asked.choices.begin(), asked.choices.end(),
                                 [](const auto& entry) { return entry.second.has_begun(); });
  if (++asked.refusals >= kRefusalsMax && !begun) return end(asked, counts_.overloaded);
  for (const RequestId part : asked.at_gateway) gateway_.cancel(part, std::nullopt);
  const uint64_t attempt = ++asked.attempt;
  world_.after(5ms, [this, id, attempt] {
    if (asked_.at(id).attempt == attempt) ask(id);
  });
}

void SimClients::cancel(RequestId id) {
  Asked& asked = asked_.at(id);
  if (asked.ended) return;
  if (asked.choices.size() > 1 && world_.random.chance(2)) {
    auto choice = asked.choices.begin();
    std::advance(choice, world_.random.pick(static_cast<int>(asked.choices.size())));
    world_.say("request {} choice {} is cancelled", id, choice->first);
    for (const RequestId part : asked.at_gateway) gateway_.cancel(part, choice->first);
    choice->second.ended = true;
    return end_if_all_have(asked);
  }
  world_.say("request {} is cancelled", id);
  end(asked, counts_.cancelled);
}

void SimClients::end(Asked& asked, int& counter) {
  for (const RequestId part : asked.at_gateway) gateway_.cancel(part, std::nullopt);
  for (auto& [index, choice] : asked.choices) choice.ended = true;
  asked.ended = true;
  ++counter;
  --num_open_;
  last_end_ = world_.now();
  if (num_drawn_ == scenario_.num_requests) return;
  ++num_drawn_;
  world_.after(world_.random.up_to(2ms), [this] { ask_new(); });
}

void SimClients::end_if_all_have(Asked& asked) {
  const bool all = std::all_of(asked.choices.begin(), asked.choices.end(),
                               [](const auto& entry) { return entry.second.ended; });
  if (all && !asked.ended) end(asked, counts_.completed);
}

void SimClients::check_end() const {
  for (const auto& [id, asked] : asked_)
    if (!asked.ended) return world_.fail("request {} did not end", id);
  if (gateway_.num_routed() != 0)
    world_.fail("{} requests are at no lane's, the router knows of them", gateway_.num_routed());
}

}  // namespace chainpump::sim
