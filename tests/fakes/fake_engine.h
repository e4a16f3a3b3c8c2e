// An engine that does what the test says: it keeps what is submitted, and the test hands it tokens,
// scores and ends. Any thread, but the test's calls come from one.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "gateway/engine.h"

namespace chainpump::fakes {

class FakeEngine final : public gateway::Engine {
 public:
  struct Submitted {
    actors::SequenceRequest request;
    actors::SequenceCallbacks callbacks;
    RequestId id;  // of its request
    Duration timeout{0};
    bool cancelled = false;
    bool ended = false;
    int32_t next_position = 0;
  };

  RequestId submit(actors::SequenceRequest request, Duration timeout,
                   std::vector<actors::SequenceCallbacks> callbacks) override {
    const std::lock_guard lock(mutex_);
    const auto position = static_cast<int32_t>(request.prompt.size());
    const RequestId id(sequences_.size() + 1);
    for (actors::SequenceCallbacks& sequence : callbacks) {
      sequences_.push_back({request, std::move(sequence), id, timeout, false, false, position});
      ++request.sequence_index;
    }
    return id;
  }
  /// The ends come at once, unless `deaf`.
  void cancel(RequestId id) override {
    std::vector<size_t> cancelled;
    {
      const std::lock_guard lock(mutex_);
      for (size_t i = id.value - 1; i < sequences_.size() && sequences_[i].id == id; ++i)
        if (!sequences_[i].ended) cancelled.push_back(i);
      for (const size_t i : cancelled) sequences_[i].cancelled = true;
    }
    if (deaf) return;
    for (const size_t i : cancelled)
      end(i, make_error(ErrorCode::cancelled, "the engine was told to"));
  }
  Result<actors::RuntimeReport> report(Duration) override { return actors::RuntimeReport{}; }
  graph::HealthReport health() override {
    const std::lock_guard lock(mutex_);
    return health_;
  }
  void set_health(graph::HealthReport health) {
    const std::lock_guard lock(mutex_);
    health_ = std::move(health);
  }
  /// One event, whose number and microbatch is `since`; one stage.
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration) override {
    if (rank != RankId(0))
      return make_error(ErrorCode::invalid_argument, "there is no rank {}", rank);
    const auto at = [](int64_t ns) { return TimePoint{Duration(ns)}; };
    return StepEvents{
        .events = {{MicrobatchId(since), 3, 7, at(1), at(2), at(3), at(4), at(5), at(6)}},
        .next = since + 1,
        .lost = 2,
        .now = at(9)};
  }

  /// By sequence, in the order submitted.
  Submitted& at(size_t index) { return sequences_.at(index); }
  size_t size() const { return sequences_.size(); }

  void token(size_t index, TokenId token, graph::FinishReason finish = graph::FinishReason::none,
             int64_t text_bytes = -1) {
    Submitted& sequence = sequences_.at(index);
    graph::TokenResult result;
    result.position = sequence.next_position++;
    result.token = token;
    result.finish = finish;
    result.text_bytes = text_bytes;
    if (sequence.request.sampling.num_top_logprobs >= 0) {
      result.logprob = -0.5f;
      result.top_logprobs.assign(static_cast<size_t>(sequence.request.sampling.num_top_logprobs),
                                 {token, -0.5f});
    }
    sequence.callbacks.on_token(result);
    if (finish != graph::FinishReason::none) end(index, Ok{});
  }
  void end(size_t index, Result<Ok> how) {
    Submitted& sequence = sequences_.at(index);
    if (std::exchange(sequence.ended, true)) return;
    auto on_end = sequence.callbacks.on_end;
    sequence.callbacks = {};  // as a real engine, it lets go of what has ended
    on_end(std::move(how));
  }

  bool deaf = false;

 private:
  std::mutex mutex_;
  std::vector<Submitted> sequences_;
  graph::HealthReport health_{.ready = true};
};

}  // namespace chainpump::fakes
