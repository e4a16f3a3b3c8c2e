// Lanes of one runtime whose first ranks come and go: who is asked, who waits, and, with threads of
// all kinds at once, that every request ends once with its own tokens.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "actors/lanes.h"
#include "tests/actors/lane_world.h"
#include "tests/fakes/random.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
constexpr Duration kPatience = 20s;

graph::Plan plan_of(size_t num_lanes) {
  graph::Plan plan;
  plan.stages.resize(1);
  plan.stages[0].devices.resize(num_lanes);
  plan.kv.block_tokens = 4;
  plan.max_microbatch_tokens = 8;
  return plan;
}

/// What a sequence was told by whatever thread.
struct Heard {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<TokenId> tokens;
  std::vector<Result<Ok>> ends;

  SequenceCallbacks callbacks() {
    return {.on_token =
                [this](const graph::TokenResult& token) {
                  const std::lock_guard lock(mutex);
                  tokens.push_back(token.token);
                },
            .on_score = [](const graph::ScoreResult&) {},
            .on_end =
                [this](Result<Ok> how) {
                  const std::lock_guard lock(mutex);
                  ends.push_back(std::move(how));
                  changed.notify_all();
                }};
  }
  Result<Ok> wait_end() {
    std::unique_lock lock(mutex);
    BOOST_REQUIRE(changed.wait_for(lock, kPatience, [this] { return !ends.empty(); }));
    return ends.front();
  }
};

struct LanesWorld {
  explicit LanesWorld(size_t num_lanes) : lanes(*Lanes::create(plan_of(num_lanes), outcome)) {
    outcome->set_serving(lanes, {}, "n");
  }
  ~LanesWorld() { outcome->drop_ports(); }

  std::shared_ptr<FakeRankPort> open(uint8_t lane) {
    const auto rank = std::make_shared<FakeRankPort>();
    lanes->reopen(graph::LaneId(lane), rank, PlanEpoch(++epoch));
    return rank;
  }
  RequestId submit(Heard& heard, Duration timeout = kPatience) {
    const RequestId id(++num_requests);
    lanes->submit(id, asked(3), timeout, {heard.callbacks()});
    return id;
  }

  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();
  std::shared_ptr<Lanes> lanes;
  uint64_t num_requests = 0;
  uint32_t epoch = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_lane_that_is_away_gets_nothing_while_another_serves) {
  LanesWorld w(2);
  const auto a = w.open(0);
  const auto b = w.open(1);
  std::vector<Heard> heard(12);
  for (size_t i = 0; i < 4; ++i) w.submit(heard[i]);
  BOOST_TEST(a->requests().size() == 2u);
  BOOST_TEST(b->requests().size() == 2u);
  a->watch_answer(gone());
  for (size_t i = 4; i < 8; ++i) w.submit(heard[i]);
  BOOST_TEST(b->requests().size() == 6u);
  // None serves: they wait, in both.
  b->watch_answer(gone());
  for (size_t i = 8; i < 12; ++i) w.submit(heard[i]);
  const auto c = w.open(1);
  BOOST_TEST(c->requests().size() == 8u);
  const auto d = w.open(0);
  BOOST_TEST(d->requests().size() == 4u);
  for (const auto& rank : {c, d})
    for (const auto& request : rank->requests()) {
      say_tokens(*rank, request, 0, 0, 1, true);
      say_end(*rank, request, 0);
    }
  for (Heard& each : heard) {
    BOOST_TEST(each.wait_end().ok());
    BOOST_TEST(each.tokens == std::vector<TokenId>{13});
  }
}

BOOST_AUTO_TEST_CASE(what_waits_is_cancelled_expires_and_fails_without_any_rank) {
  for (const size_t num_lanes : {1, 2}) {
    LanesWorld w(num_lanes);
    Heard cancelled, late, failed;
    const RequestId id = w.submit(cancelled);
    w.submit(late, 30ms);
    w.submit(failed);
    w.lanes->cancel(id);
    BOOST_TEST((cancelled.wait_end().error().code == ErrorCode::cancelled));
    BOOST_TEST((late.wait_end().error().code == ErrorCode::deadline_exceeded));
    w.outcome->set_failed(make_error(ErrorCode::internal, "too many deaths"));
    BOOST_TEST(failed.wait_end().error().message == "too many deaths");
    BOOST_TEST((w.outcome->lanes() == nullptr));
  }
}

BOOST_AUTO_TEST_CASE(what_waits_ends_with_the_runtime) {
  LanesWorld w(1);
  Heard heard;
  w.submit(heard);
  w.outcome->drop_ports();
  BOOST_REQUIRE_EQUAL(heard.ends.size(), 1u);  // before it returns
  BOOST_TEST((heard.ends[0].error().code == ErrorCode::cancelled));
  // Who comes too late is let go at once.
  const auto late = *Lanes::create(plan_of(1), w.outcome);
  w.outcome->set_serving(late, {}, "n");
  BOOST_TEST((w.outcome->lanes() == nullptr));
  Heard after;
  late->submit(RequestId(1), asked(3), kPatience, {after.callbacks()});
  BOOST_TEST(after.ends.size() == 1u);
}

namespace {

constexpr int32_t kTokens = 200;  // of every sequence

/// A rank that serves on a thread of its own, a token of each sequence at a time, until it dies.
class LiveRank final : public RankPort {
 public:
  ~LiveRank() override { kill(); }
  /// Returns once nothing more comes of it.
  void kill() {
    std::thread thread;
    rpc::Callback<Ok> watch;
    {
      const std::lock_guard lock(mutex_);
      dead_ = true;
      changed_.notify_all();
      thread.swap(thread_);
      watch.swap(watch_);
    }
    if (thread.joinable()) thread.join();
    if (watch) watch(gone());
  }

  // The dead answer at once, in the call.
  void attach(graph::LaneId, std::function<void(rpc::LaneResults)> on_results, Duration,
              rpc::Callback<Ok> callback) override {
    {
      const std::lock_guard lock(mutex_);
      results_ = std::move(on_results);
      if (!dead_) thread_ = std::thread([this] { main(); });
      if (!dead_) return;
    }
    callback(gone());
  }
  void watch(bool, rpc::Callback<Ok> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!dead_) watch_.swap(callback);
    }
    if (callback) callback(gone());
  }
  void submit(graph::LaneId, std::vector<rpc::GenerateRequest> requests, Duration,
              rpc::Callback<Ok> callback) override {
    bool dead = false;
    {
      const std::lock_guard lock(mutex_);
      dead = dead_;
      if (!dead) incoming_.insert(incoming_.end(), requests.begin(), requests.end());
      changed_.notify_all();
    }
    if (dead) callback(gone());
  }
  void cancel(graph::LaneId, std::vector<uint64_t> ids, Duration, rpc::Callback<Ok>) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(cancelled_.end(), ids.begin(), ids.end());
    changed_.notify_all();
  }
  void hello(Duration, rpc::Callback<rpc::HelloReply>) override {}
  void load(rpc::LoadParams, Duration, rpc::ProgressCallback,
            rpc::Callback<rpc::LoadReport>) override {}
  void connect(rpc::ConnectParams, Duration, rpc::Callback<Ok>) override {}
  void stats(Duration, rpc::Callback<rpc::RankStats>) override {}
  void trace(uint64_t, Duration, rpc::Callback<StepEvents>) override {}
  void shutdown(Duration, rpc::Callback<Ok>) override {}
  void beat(Duration, rpc::Callback<uint64_t>) override {}
  void fence(graph::LaneId, PlanEpoch, Duration, rpc::Callback<rpc::StageHoldings>) override {}
  void resume(graph::LaneId, PlanEpoch, std::vector<rpc::StageHoldings>, Duration,
              rpc::Callback<Ok>) override {}

 private:
  struct Running {
    int32_t next_position, last_position;
  };
  void main() {
    std::map<std::pair<uint64_t, uint32_t>, Running> running;
    std::unique_lock lock(mutex_);
    while (!dead_) {
      if (running.empty() && incoming_.empty()) {
        changed_.wait(lock);
        continue;
      }
      for (const rpc::GenerateRequest& request : std::exchange(incoming_, {}))
        for (int32_t i = 0; i < request.num_sequences; ++i) {
          const auto prompt = static_cast<int32_t>(request.prompt.size());
          const auto done = static_cast<int32_t>(request.generated.size());
          running[{request.request_id, request.sequence_index + static_cast<uint32_t>(i)}] = {
              prompt + done, prompt + kTokens - 1};
        }
      const std::vector<uint64_t> cancelled = std::exchange(cancelled_, {});
      lock.unlock();
      results_(step(running, cancelled));
      lock.lock();
    }
  }
  static rpc::LaneResults step(std::map<std::pair<uint64_t, uint32_t>, Running>& running,
                               const std::vector<uint64_t>& cancelled) {
    rpc::LaneResults results;
    for (auto it = running.begin(); it != running.end();) {
      const auto [request, sequence] = it->first;
      Running& now = it->second;
      if (std::find(cancelled.begin(), cancelled.end(), request) != cancelled.end()) {
        results.ends.push_back({request, sequence, make_error(ErrorCode::cancelled, "asked for")});
        it = running.erase(it);
        continue;
      }
      const bool last = now.next_position == now.last_position;
      rpc::TokenResult token;
      token.request_id = request;
      token.sequence_index = sequence;
      token.position = now.next_position;
      token.token = 10 + now.next_position;
      if (last) token.finish = rpc::FinishReason::length;
      results.tokens.push_back(std::move(token));
      ++now.next_position;
      if (last) results.ends.push_back({request, sequence, ok_status()});
      it = last ? running.erase(it) : std::next(it);
    }
    return results;
  }

  std::function<void(rpc::LaneResults)> results_;
  rpc::Callback<Ok> watch_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool dead_ = false;
  std::vector<rpc::GenerateRequest> incoming_;
  std::vector<uint64_t> cancelled_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(whatever_dies_and_whoever_asks_meanwhile_nothing_is_lost_or_told_twice) {
  for (const size_t num_lanes : {1, 3}) {
    fakes::Random random(num_lanes);
    LanesWorld w(num_lanes);
    std::vector<std::shared_ptr<LiveRank>> ranks(num_lanes);
    const auto replace = [&](size_t lane, bool told_first) {
      const auto before = ranks[lane];
      if (before && !told_first) before->kill();
      ranks[lane] = std::make_shared<LiveRank>();
      w.lanes->reopen(graph::LaneId(static_cast<uint8_t>(lane)), ranks[lane], PlanEpoch(++w.epoch));
      if (before) before->kill();
    };
    for (size_t lane = 0; lane < num_lanes; ++lane) replace(lane, false);
    std::vector<Heard> heard(240);
    std::atomic<size_t> num_asked{0};
    std::atomic<size_t> num_ended{0};
    std::thread client([&] {
      for (size_t i = 0; i < heard.size(); i += 2) {
        const RequestId id(i + 1);
        std::vector<SequenceCallbacks> callbacks = {heard[i].callbacks(), heard[i + 1].callbacks()};
        for (SequenceCallbacks& each : callbacks)
          each.on_end = [&num_ended, on_end = std::move(each.on_end)](Result<Ok> how) {
            on_end(std::move(how));
            ++num_ended;
          };
        w.lanes->submit(id, asked(3, 2), kPatience, std::move(callbacks));
        num_asked = i + 2;
        if (i % 10 == 0) w.lanes->cancel(id);
        while (num_asked - num_ended > 30) std::this_thread::yield();
      }
    });
    int num_deaths = 0;
    const TimePoint deadline = steady_clock().now() + kPatience;
    while (num_ended < heard.size() && steady_clock().now() < deadline) {
      replace(static_cast<size_t>(random.pick(static_cast<int>(num_lanes))), random.chance(2));
      ++num_deaths;
      const TimePoint until = steady_clock().now() + random.up_to(2ms);
      while (steady_clock().now() < until) std::this_thread::yield();
    }
    client.join();
    BOOST_TEST_MESSAGE(num_lanes << " lanes: " << num_deaths << " deaths");
    std::vector<TokenId> all;  // by the law
    for (int32_t i = 0; i < kTokens; ++i) all.push_back(13 + i);
    for (size_t i = 0; i < heard.size(); ++i) {
      BOOST_TEST_CONTEXT("sequence " << i) {
        const Result<Ok> end = heard[i].wait_end();
        const std::lock_guard lock(heard[i].mutex);
        BOOST_TEST(heard[i].ends.size() == 1u);
        BOOST_TEST((end.ok() || (end.error().code == ErrorCode::cancelled && i % 10 < 2)));
        std::vector<TokenId> expected = all;
        if (!end.ok()) expected.resize(std::min(all.size(), heard[i].tokens.size()));
        BOOST_TEST(heard[i].tokens == expected);
      }
    }
  }
}

}  // namespace chainpump::actors
