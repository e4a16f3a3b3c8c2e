// A chain of stage loops over executors without a model, joined by loopback links, in one thread or
// with a thread for each: what the tests of StageLoop share. A stage can be lost and put back.
#pragma once

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "actors/stage_loop.h"
#include "actors/stage_turns.h"
#include "base/kv_layout.h"
#include "tests/fakes/fake_executor.h"
#include "tests/fakes/why.h"
#include "transport/loopback.h"

namespace chainpump::actors {

using fakes::FakeExecutor;

inline constexpr int32_t kNumBlocks = 64;

inline graph::SequencerOptions chain_sequencer_options(int32_t num_stages) {
  graph::SequencerOptions options;
  for (int32_t i = 0; i < num_stages; ++i)
    options.stages.push_back({"stage " + std::to_string(i), kNumBlocks});
  options.context_tokens = 256;
  options.prefill_chunk_tokens = 8;
  options.max_microbatch_tokens = 16;
  options.max_sequences = 4;
  options.max_microbatches = num_stages + 1;
  options.block_tokens = kKvBlockTokens;
  options.vocabulary_size = FakeExecutor::kVocabulary;
  return options;
}

inline transport::LinkOptions chain_edge_options(uint32_t edge, int32_t credits) {
  return {.edge = EdgeId(edge),
          .epoch = PlanEpoch(1),
          .secret = 7,
          .credits = credits,
          .slot_payload_bytes = 16 * FakeExecutor::kHidden * int64_t{sizeof(float)},
          .slot_metadata_bytes = 8192};
}

struct ChainOptions {
  int32_t credits = 4;
  const Clock* clock = &steady_clock();
  std::function<void(std::span<std::byte>)> on_first_wire;  // of the first edge
  std::function<Status(int32_t stage)> on_run;
  int64_t replay_log_bytes = 0;
  bool prefix_cache = true;
  std::function<std::unique_ptr<transport::SendLink>(size_t, std::unique_ptr<transport::SendLink>)>
      wrap_sender = {};
};

struct Chain {
  std::vector<std::unique_ptr<FakeExecutor>> executors;
  std::vector<std::unique_ptr<transport::Waiter>> waiters;
  std::vector<std::unique_ptr<StepClock>> clocks;
  std::vector<std::unique_ptr<StageLoop>> loops;
  std::vector<StageTurns> turns;  // each of one loop
  std::map<RequestId, std::vector<TokenId>> tokens;
  std::vector<graph::EndDelivery> ends;
  uint64_t last_request = 0;
  std::atomic<int> num_finished{0};

  ChainOptions given;
  uint32_t epoch = 0;  // of the present links

  explicit Chain(int32_t num_stages, const ChainOptions& options = {}) : given(options) {
    const auto count = static_cast<size_t>(num_stages);
    executors.resize(count);
    loops.resize(count);
    for (size_t i = 0; i < count; ++i) {
      waiters.push_back(std::make_unique<transport::Waiter>(transport::WaiterOptions{}));
      clocks.push_back(std::make_unique<StepClock>(*options.clock));
      make_stage(i);
      turns.push_back(StageTurns({loops[i].get()}, *clocks[i], *waiters[i]));
    }
    link_all();
    for (const auto& clock : clocks) clock->restart();
  }

  /// A new one, which holds nothing and has no links.
  void make_stage(size_t i) {
    const auto index = static_cast<int32_t>(i);
    const bool is_first = i == 0;
    const bool is_last = i + 1 == loops.size();
    loops[i].reset();
    executors[i] = std::make_unique<FakeExecutor>(fakes::FakeStage{
        .stage = index, .is_first = is_first, .is_last = is_last, .on_run = [this, index] {
          return given.on_run ? given.on_run(index) : ok_status();
        }});
    StageLoopOptions loop;
    loop.work = {.stage = StageIndex(index),
                 .is_first = is_first,
                 .is_last = is_last,
                 .replay_log_bytes = given.replay_log_bytes};
    if (is_first) {
      loop.sequencer = chain_sequencer_options(static_cast<int32_t>(loops.size()));
      loop.sequencer->prefix_cache = given.prefix_cache;
    }
    loops[i] = std::make_unique<StageLoop>(
        loop, *executors[i], [this](const graph::Deliveries& d) { take(d); }, *waiters[i],
        *clocks[i]);
  }

  void link_all() {
    const size_t count = loops.size();
    ++epoch;
    std::vector<std::unique_ptr<transport::SendLink>> senders(count);
    std::vector<std::unique_ptr<transport::ReceiveLink>> receivers(count);
    for (size_t i = 0; i < count; ++i) {
      auto edge = chain_edge_options(static_cast<uint32_t>(i), given.credits);
      edge.epoch = PlanEpoch(epoch);
      std::tie(senders[i], receivers[(i + 1) % count]) = transport::make_loopback_pair(
          {.sender = edge, .receiver = edge, .on_wire = i == 0 ? given.on_first_wire : nullptr});
    }
    for (size_t i = 0; i < count; ++i) {
      if (given.wrap_sender) senders[i] = given.wrap_sender(i, std::move(senders[i]));
      loops[i]->link(std::move(receivers[i]), std::move(senders[i]), PlanEpoch(epoch));
    }
  }

  /// Its memory is gone; its neighbours see their links end.
  void lose(const std::set<size_t>& dead) {
    for (const size_t i : dead) make_stage(i);
    for (const auto& loop : loops) loop->fence();
    for (bool all_cut = false; !all_cut;) {
      all_cut = true;
      for (const auto& loop : loops) {
        BOOST_REQUIRE(loop->step().ok());
        all_cut &= loop->is_cut();
      }
    }
  }
  /// As a coordinator would, after lose().
  void repair(const std::set<size_t>& dead) {
    std::vector<graph::StageHoldings> holdings;
    for (size_t i = 0; i < loops.size(); ++i)
      if (!dead.contains(i)) holdings.push_back(loops[i]->holdings());
    link_all();
    first().resume(holdings);
  }

  void take(const graph::Deliveries& deliveries) {
    for (const auto& [choice, token] : deliveries.tokens)
      tokens[choice.request].push_back(token.token);
    ends.insert(ends.end(), deliveries.ended.begin(), deliveries.ended.end());
    num_finished += static_cast<int>(deliveries.ended.size());
  }
  RequestId submit(int32_t num_prompt, int32_t max_new, std::optional<TimePoint> deadline = {}) {
    graph::Request request;
    request.id = RequestId(++last_request);
    request.identity = last_request;
    request.deadline = deadline;
    for (int32_t i = 0; i < num_prompt; ++i) request.prompt.push_back((i * 11 + 3) % 80);
    request.sampling.max_new_tokens = max_new;
    const Status taken = first().sequencer().submit(std::move(request), steady_clock().now());
    BOOST_REQUIRE_MESSAGE(taken.ok(), fakes::why(taken));
    return RequestId(last_request);
  }
  std::vector<TokenId> expected(int32_t num_prompt, int32_t max_new) const {
    TokenId token = ((num_prompt - 1) * 11 + 3) % 80;
    std::vector<TokenId> made;
    for (int32_t i = 0; i < max_new; ++i) {
      token = FakeExecutor::next_token(token, num_prompt - 1 + i,
                                       static_cast<int32_t>(executors.size()));
      made.push_back(token);
    }
    return made;
  }
  /// Steps every loop in turn until nothing moves or one fails.
  Status run_dry() {
    for (bool moved = true; moved;) {
      moved = false;
      for (const auto& loop : loops) {
        ASSIGN_OR_RETURN(const bool did, loop->step());
        moved |= did;
      }
    }
    return ok_status();
  }
  StageLoop& first() { return *loops.front(); }
};

}  // namespace chainpump::actors
