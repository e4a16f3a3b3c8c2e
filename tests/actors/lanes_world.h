// Lanes of one runtime, over ranks that a test has in hand or that serve on threads of their own.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "actors/lanes.h"
#include "tests/actors/lane_world.h"

namespace chainpump::actors {

inline constexpr Duration kPatience = std::chrono::seconds(20);

inline graph::Plan plan_of(size_t num_lanes) {
  graph::Plan plan;
  plan.stages.resize(1);
  plan.stages[0].devices.resize(num_lanes);
  plan.kv.block_tokens = 4;
  plan.max_microbatch_tokens = 8;
  return plan;
}

/// What a sequence was told by whatever thread. Outlives the lanes that tell it.
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
  explicit LanesWorld(size_t num_lanes, Duration move_after = kPatience,
                      std::function<void(graph::LaneId)> reconnect = {})
      : lanes(*Lanes::create(plan_of(num_lanes), outcome,
                             {.reconnect = std::move(reconnect), .move_after = move_after})) {
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

inline constexpr int32_t kTokens = 200;  // of every sequence

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

  /// Takes in, and lets go of, what it is told, but computes nothing.
  void set_stalled(bool stalled) {
    const std::lock_guard lock(mutex_);
    stalled_ = stalled;
    changed_.notify_all();
  }
  size_t num_running() {
    const std::lock_guard lock(mutex_);
    return num_running_;
  }
  /// Requests, ever.
  size_t num_taken() {
    const std::lock_guard lock(mutex_);
    return num_taken_;
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
      if (!dead) num_taken_ += requests.size();
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
  void beat(Duration, rpc::Callback<rpc::BeatReply>) override {}
  void fence(graph::LaneId, PlanEpoch, Duration, rpc::Callback<rpc::StageHoldings>) override {}
  void resume(graph::LaneId, PlanEpoch, std::vector<rpc::StageHoldings>, Duration,
              rpc::Callback<Ok>) override {}
  void take_in(rpc::KvCopy, Duration, rpc::Callback<rpc::KvAddress>) override {}
  void copy(rpc::KvCopy, Duration, rpc::ProgressCallback, rpc::Callback<Ok>) override {}
  void finish_copy(Duration, rpc::Callback<Ok>) override {}

 private:
  struct Running {
    int32_t next_position, last_position;
  };
  void main() {
    std::map<std::pair<uint64_t, uint32_t>, Running> running;
    std::unique_lock lock(mutex_);
    while (!dead_) {
      num_running_ = running.size();
      const bool told = !incoming_.empty() || !cancelled_.empty();
      if (!told && (stalled_ || running.empty())) {
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
      const bool stalled = stalled_;
      const uint64_t num_taken = num_taken_;
      lock.unlock();
      rpc::LaneResults results = end(running, cancelled);
      if (!stalled) step(running, results);
      results.stats.num_taken = num_taken;
      results.stats.num_running = static_cast<int32_t>(running.size());
      results.stats.queue_room = results.stats.num_free_blocks = 1000;
      results_(std::move(results));
      lock.lock();
    }
  }
  using All = std::map<std::pair<uint64_t, uint32_t>, Running>;
  static rpc::LaneResults end(All& running, const std::vector<uint64_t>& cancelled) {
    rpc::LaneResults results;
    for (auto it = running.begin(); it != running.end();) {
      const auto [request, sequence] = it->first;
      const bool ends = std::find(cancelled.begin(), cancelled.end(), request) != cancelled.end();
      if (ends)
        results.ends.push_back({request, sequence, make_error(ErrorCode::cancelled, "asked for")});
      it = ends ? running.erase(it) : std::next(it);
    }
    return results;
  }
  /// A token of each.
  static void step(All& running, rpc::LaneResults& results) {
    for (auto it = running.begin(); it != running.end();) {
      const auto [request, sequence] = it->first;
      Running& now = it->second;
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
  }

  std::function<void(rpc::LaneResults)> results_;
  rpc::Callback<Ok> watch_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool dead_ = false;
  bool stalled_ = false;
  size_t num_running_ = 0;
  size_t num_taken_ = 0;
  std::vector<rpc::GenerateRequest> incoming_;
  std::vector<uint64_t> cancelled_;
};

}  // namespace chainpump::actors
