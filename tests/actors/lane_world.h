// One lane, its ranks, which say what a test has them say, and who uses it. For the tests of
// actors/lane.h. One thread; time moves when told to.
#pragma once

#include <boost/test/unit_test.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/lane.h"
#include "actors/outcome.h"
#include "tests/fakes/fake_rank_port.h"

namespace chainpump::actors {

using fakes::FakeRankPort;

/// What one sequence was told, as text: "13 14 ok".
struct Told {
  std::string text;
  std::string message;  // of the error that it ended with
  std::function<void()> on_token = [] {};

  SequenceCallbacks callbacks() {
    return {
        .on_token =
            [this](const graph::TokenResult& token) {
              text += fmt::format("{} ", token.token);
              on_token();
            },
        .on_score =
            [this](const graph::ScoreResult& score) { text += fmt::format("{} ", score.position); },
        .on_end =
            [this](const Result<Ok>& how) {
              text += how.ok() ? "ok" : std::string(to_string(how.error().code));
              if (!how.ok()) message = how.error().message;
            }};
  }
};

/// Of as many prompt tokens: the model's token at position p is 10 + p.
inline SequenceRequest asked(int32_t num_prompt, int32_t num_sequences = 1) {
  SequenceRequest request;
  request.num_sequences = num_sequences;
  for (int32_t i = 0; i < num_prompt; ++i) request.prompt.push_back(i);
  request.sampling.max_new_tokens = 100;
  request.sampling.seed = 42;
  return request;
}

inline SequenceRequest to_score(int32_t num_prompt, int32_t first, std::string full_path = "") {
  SequenceRequest request = asked(num_prompt);
  request.score = {.first_position = first, .full_path = std::move(full_path)};
  return request;
}

/// The next `count` tokens of what `request` asks for, after the `done` that came before.
inline void say_tokens(FakeRankPort& rank, const rpc::GenerateRequest& request, uint32_t sequence,
                       int32_t done, int32_t count, bool last = false) {
  rpc::LaneResults results;
  const auto known = static_cast<int32_t>(request.prompt.size() + request.generated.size());
  for (int32_t i = 0; i < count; ++i) {
    rpc::TokenResult token;
    token.request_id = request.request_id;
    token.sequence_index = sequence;
    token.position = known + done + i;
    token.token = 10 + token.position;
    if (last && i == count - 1) token.finish = rpc::FinishReason::length;
    results.tokens.push_back(token);
  }
  rank.results(std::move(results));
}

inline void say_scores(FakeRankPort& rank, const rpc::GenerateRequest& request, int32_t begin,
                       int32_t end) {
  rpc::LaneResults results;
  for (int32_t position = begin; position < end; ++position)
    results.scores.push_back({.request_id = request.request_id, .position = position});
  rank.results(std::move(results));
}

inline void say_end(FakeRankPort& rank, const rpc::GenerateRequest& request, uint32_t sequence,
                    Status how = ok_status()) {
  rank.results({.tokens = {},
                .scores = {},
                .ends = {{request.request_id, sequence, std::move(how)}},
                .stats = {}});
}

inline Error gone() { return make_error(ErrorCode::disconnected, "the rank has gone"); }

struct LaneWorld {
  static constexpr Duration kTimeout = std::chrono::seconds(10);

  ManualClock clock;
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  std::string events;  // "open away "
  std::vector<rpc::LaneStats> stats;
  std::optional<TimePoint> wake_due;
  std::shared_ptr<Lane> lane = std::make_shared<Lane>(
      LaneOptions{.id = graph::LaneId(2), .max_waiting = 4}, outcome,
      LaneEvents{
          .on_open = [this] { events += "open "; },
          .on_away = [this] { events += "away "; },
          .on_stats = [this](const rpc::LaneStats& now) { stats.push_back(now); },
          .wake_at =
              [this](TimePoint when) { wake_due = wake_due ? std::min(*wake_due, when) : when; }},
      clock);
  uint64_t num_requests = 0;
  uint32_t epoch = 0;

  ~LaneWorld() { lane->close(); }

  /// Another first rank.
  std::shared_ptr<FakeRankPort> open() {
    const auto rank = std::make_shared<FakeRankPort>();
    reopen(rank);
    return rank;
  }
  void reopen(const std::shared_ptr<FakeRankPort>& rank) {
    lane->reopen(rank, PlanEpoch(++epoch));
    if (!rank->attach_refused) BOOST_TEST((rank->attached_to == graph::LaneId(2)));
  }
  RequestId submit(SequenceRequest request, std::vector<Told*> told, Duration timeout = kTimeout) {
    const RequestId id(++num_requests);
    std::vector<SequenceCallbacks> callbacks;
    for (Told* each : told) callbacks.push_back(each->callbacks());
    lane->submit(id, std::move(request), timeout, std::move(callbacks));
    return id;
  }
  void advance(Duration by) {
    clock.advance(by);
    run_due();
  }
  /// What the lane has asked for by now.
  void run_due() {
    while (wake_due && *wake_due <= clock.now()) {
      wake_due.reset();
      lane->on_time();
    }
  }
};

}  // namespace chainpump::actors
