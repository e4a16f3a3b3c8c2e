#include "tests/sim/sim_gateway.h"

#include <algorithm>

namespace chainpump::sim {
namespace {

graph::RouterOptions router_options(const Scenario& scenario) {
  return {.num_lanes = scenario.num_lanes(), .block_tokens = kBlockTokens};
}

}  // namespace

using graph::LaneId;

SimGateway::SimGateway(SimWorld& world, const Scenario& scenario, const SimAgent& agent)
    : world_(world),
      scenario_(scenario),
      agent_(agent),
      router_(router_options(scenario)),
      lanes_(static_cast<size_t>(scenario.num_lanes())) {}

// -------------------------------------------------------------------------------- its life

void SimGateway::die() {
  world_.say("the gateway dies");
  alive_ = false;
  ++life_;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const std::shared_ptr<ResultStream> stream = lanes_[i].stream;
    if (stream) stream->leave();
    to_rank(LaneId(static_cast<uint8_t>(i)), [stream](SimFront& front) { front.detach(stream); });
  }
  lanes_ = std::vector<Lane>(lanes_.size());
  router_ = graph::Router(router_options(scenario_));
  num_open_ = 0;
}

void SimGateway::start() {
  world_.say("the gateway is back");
  alive_ = true;
}

void SimGateway::on_failed(const Error& why) {
  failed_ = why;
  if (!alive_) return;
  for (Lane& lane : lanes_)
    while (!lane.deliveries.empty()) end(lane, lane.deliveries.begin(), why);
}

// -------------------------------------------------------------------------------- lanes

void SimGateway::on_first(LaneId lane, LaneFirst first) {
  if (!alive_) return;
  world_.after(scenario_.call_delay, [this, lane, first, life = life_] {
    if (life == life_) reopen(lane, first);
  });
}

/// An epoch that is not newer than the last is void.
void SimGateway::reopen(LaneId id, LaneFirst first) {
  Lane& lane = lanes_[id.value];
  if (first.since <= lane.since) return;
  if (world_.plant == Plant::first_not_told && lane.since > scenario_.plan.epoch) return;
  lane.since = first.since;
  if (lane.rank != nullptr) {
    lane.stream->leave();
    lose(id);
  }
  SimProcess* const rank = agent_.process(first.process);
  world_.say("the gateway attaches to lane {} at process {}, since epoch {}", id, first.process,
             first.since);
  lane.stream = std::make_shared<ResultStream>(
      world_, scenario_.delay, [this, id](const LaneResults& results) { take(id, results); },
      [this, id, since = first.since] {
        if (lanes_[id.value].since == since) lose(id);
      });
  lane.rank = rank;
  ++num_open_;
  router_.set_state(id, graph::LaneState::serving);
  call<Ok>(
      world_, {.delay = scenario_.delay + Duration(1)}, *rank,
      [rank, id, stream = lane.stream](Reply<Ok> reply) {
        rank->attach(id, stream, std::move(reply));
      },
      [this, id, stream = lane.stream](const Result<Ok>& attached) {
        if (attached.ok() || lanes_[id.value].stream != stream || stream->is_left()) return;
        stream->leave();
        lose(id);
      });
  end_late(id);
  give_kept(id);
}

void SimGateway::lose(LaneId id) {
  Lane& lane = lanes_[id.value];
  if (lane.rank == nullptr) return;
  world_.say("the gateway has lost lane {}", id);
  lane.rank = nullptr;
  lane.stream.reset();
  --num_open_;
  router_.set_state(id, graph::LaneState::dead);
  end_late(id);
}

/// In order, and after its attach.
template <typename What>
void SimGateway::to_rank(LaneId id, What what) {
  SimProcess* const rank = lanes_[id.value].rank;
  if (rank == nullptr) return;
  world_.after(scenario_.delay * 5 / 4 + Duration(3), [rank, id, what] {
    rank->when_awake([rank, id, what] {
      SimStage* const stage = rank->stage(id);
      if (stage != nullptr && stage->front() != nullptr) what(*stage->front());
    });
  });
}

// -------------------------------------------------------------------------------- requests

size_t SimGateway::choose(const graph::Request& request) {
  if (num_open_ == 0) return request.id.value % lanes_.size();
  std::vector<TokenId> known = request.prompt;
  known.insert(known.end(), request.generated.begin(), request.generated.end());
  const Result<graph::Route> route = router_.route({.id = request.id,
                                                    .cache_salt = request.cache_salt,
                                                    .prompt = known,
                                                    .num_choices = request.num_choices});
  if (route.ok()) return route->lane.value;
  world_.fail("request {} has no lane: {}", request.id, route.error().message);
  return 0;
}

void SimGateway::submit(graph::Request request, RequestCallbacks callbacks) {
  const auto num_choices = static_cast<size_t>(request.num_choices);
  request.identity = world_.random.next();
  const auto asked =
      std::make_shared<Asked>(Asked{std::move(request), std::move(callbacks), num_choices});
  const graph::Request& what = asked->request;
  if (failed_) {
    for (int i = 0; i < what.num_choices; ++i)
      asked->callbacks.on_end(what.first_choice + static_cast<uint32_t>(i), *failed_);
    return;
  }
  const LaneId id(static_cast<uint8_t>(choose(what)));
  Lane& lane = lanes_[id.value];
  const uint64_t wire = ++last_wire_;
  world_.say("request {} goes to lane {} as {}", what.id, id, wire);
  for (int i = 0; i < what.num_choices; ++i) {
    const uint32_t choice = what.first_choice + static_cast<uint32_t>(i);
    lane.deliveries[{wire, choice}] = {.asked = asked,
                                       .choice = choice,
                                       .tokens = what.generated,
                                       .next_score = what.score.first_position,
                                       .given = lane.rank != nullptr};
  }
  if (what.deadline)
    world_.events.at(*what.deadline, [this, id, life = life_] {
      if (life == life_) end_late(id);
    });
  if (lane.rank != nullptr) give(id, wire, what);
}

void SimGateway::give(LaneId id, uint64_t wire, graph::Request request) {
  to_rank(id, [stream = lanes_[id.value].stream, wire, request](SimFront& front) {
    front.submit(stream, wire, request);
  });
}

/// In the order in which they came, under new numbers.
void SimGateway::give_kept(LaneId id) {
  Lane& lane = lanes_[id.value];
  lane.num_again = 0;
  uint64_t whole = 0;  // the old number of a request that no rank was given
  for (auto& [old, delivery] : std::exchange(lane.deliveries, {})) {
    if (delivery.given || old.first != whole) {
      graph::Request request = delivery.asked->request;
      if (delivery.given) {
        request.first_choice = delivery.choice;
        request.num_choices = 1;
        request.readmitted = true;
        if (world_.plant != Plant::so_far_forgotten) request.generated = delivery.tokens;
        request.score.first_position = delivery.next_score;
      } else {
        whole = old.first;
      }
      ++lane.num_again;
      ++last_wire_;
      if (world_.plant != Plant::end_of_lane_forgotten || delivery.given)
        give(id, last_wire_, std::move(request));
    }
    delivery.given = true;
    lane.deliveries[{last_wire_, old.second}] = std::move(delivery);
  }
}

void SimGateway::cancel(RequestId id, std::optional<uint32_t> choice) {
  if (!alive_) return;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    for (auto it = lane.deliveries.begin(); it != lane.deliveries.end();) {
      const Delivery& delivery = it->second;
      if (delivery.asked->request.id != id || (choice && delivery.choice != *choice)) {
        ++it;
        continue;
      }
      to_rank(LaneId(static_cast<uint8_t>(i)),
              [stream = lane.stream, wire = it->first.first, choice](SimFront& front) {
                front.cancel(stream, wire, choice);
              });
      if (--it->second.asked->num_open == 0) router_.end(id);
      it = lane.deliveries.erase(it);
    }
  }
}

void SimGateway::end(Lane& lane, std::map<Key, Delivery>::iterator it,
                     Result<graph::FinishReason> how) {
  const Delivery delivery = std::move(it->second);
  lane.deliveries.erase(it);
  if (--delivery.asked->num_open == 0) router_.end(delivery.asked->request.id);
  delivery.asked->callbacks.on_end(delivery.choice, std::move(how));
}

/// In a lane that is away. Whoever hears of an end may cancel, and ask for more.
void SimGateway::end_late(LaneId id) {
  Lane& lane = lanes_[id.value];
  const auto is_late = [&](const auto& entry) {
    const auto deadline = entry.second.asked->request.deadline;
    return deadline && *deadline <= world_.now();
  };
  while (lane.rank == nullptr) {
    const auto late = std::find_if(lane.deliveries.begin(), lane.deliveries.end(), is_late);
    if (late == lane.deliveries.end()) return;
    end(lane, late, make_error(ErrorCode::deadline_exceeded, "the time was up"));
  }
}

void SimGateway::take(LaneId id, const LaneResults& results) {
  Lane& lane = lanes_[id.value];
  for (const auto& [wire, choice, token] : results.tokens) {
    const auto found = lane.deliveries.find({wire, choice});
    if (found == lane.deliveries.end()) continue;  // cancelled
    found->second.tokens.push_back(token.token);
    found->second.asked->callbacks.on_token(choice, token);
  }
  for (const auto& [wire, choice, score] : results.scores) {
    const auto found = lane.deliveries.find({wire, choice});
    if (found == lane.deliveries.end()) continue;
    found->second.next_score = score.position + 1;
    found->second.asked->callbacks.on_score(choice, score);
  }
  for (const auto& [wire, choice, how] : results.ends) {
    const auto found = lane.deliveries.find({wire, choice});
    if (found != lane.deliveries.end()) end(lane, found, how);
  }
  graph::LaneStats stats = results.stats;
  stats.num_taken -= std::min(stats.num_taken, lane.num_again);
  if (lane.rank != nullptr) router_.on_stats(id, stats);
}

}  // namespace chainpump::sim
