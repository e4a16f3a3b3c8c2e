// What the scheduler's parts cost on their own, in one process and without a model: the prefix
// cache per matched token, the fair queue by number of tenants, the step cost's fit, the router.
// Prints medians; judges nothing.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "graph/fair_queue.h"
#include "graph/kv_cache.h"
#include "graph/router.h"
#include "graph/step_cost.h"

namespace chainpump::graph {
namespace {

using Prompt = std::vector<TokenId>;

/// Median of 7 runs, in nanoseconds per unit.
double median_ns(int64_t num_units, const std::function<void()>& run) {
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    const TimePoint start = steady_clock().now();
    run();
    times.push_back(static_cast<double>((steady_clock().now() - start).count()) /
                    static_cast<double>(num_units));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

std::vector<Prompt> random_prompts(int num_prompts, int num_tokens) {
  std::mt19937 random(7);
  std::vector<Prompt> prompts(static_cast<size_t>(num_prompts));
  for (Prompt& prompt : prompts) {
    prompt.resize(static_cast<size_t>(num_tokens));
    for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 128'000);
  }
  return prompts;
}

void compute(KvCache& cache, const Prompt& prompt, int32_t block_tokens,
             std::vector<KvBlockId>& table) {
  table.clear();
  ContentId content;
  const auto width = static_cast<size_t>(block_tokens);
  for (size_t i = 0; i < prompt.size() / width; ++i) {
    const auto block = cache.allocate();
    CHECK(block.has_value());
    table.push_back(*block);
    content = cache.publish(0, content, std::span(prompt).subspan(i * width, width), *block);
  }
}

// One prompt again and again is found in the processor's caches, many are not.
void bench_prefix_cache(int32_t block_tokens, int num_prompts, int num_tokens) {
  const std::vector<Prompt> prompts = random_prompts(num_prompts, num_tokens);
  const int64_t total_tokens = int64_t{num_prompts} * num_tokens;
  const auto num_blocks = static_cast<int32_t>(total_tokens / block_tokens);
  KvCache cache({.num_blocks = num_blocks, .block_tokens = block_tokens});
  std::vector<KvBlockId> table;
  const double cold_ns = median_ns(total_tokens, [&] {
    cache.clear();
    for (const Prompt& prompt : prompts) {
      compute(cache, prompt, block_tokens, table);
      cache.release(table);
    }
  });
  const int rounds = static_cast<int>(std::max<int64_t>(1, 1'000'000 / total_tokens));
  const double hit_ns = median_ns(total_tokens * rounds, [&] {
    for (int round = 0; round < rounds; ++round) {
      for (const Prompt& prompt : prompts) {
        table.clear();
        cache.match(0, prompt, num_blocks, table);
        CHECK_EQ(table.size(), prompt.size() / static_cast<size_t>(block_tokens));
        cache.release(table);
      }
    }
  });
  const double look_ns = median_ns(total_tokens * rounds, [&] {
    for (int round = 0; round < rounds; ++round)
      for (const Prompt& prompt : prompts)
        CHECK_EQ(cache.num_matching(0, prompt, num_blocks),
                 static_cast<int32_t>(prompt.size()) / block_tokens);
  });
  fmt::print(
      "  {:3} prompts of {:5} tokens, blocks of {:2}: look-up {:5.2f}, match and release "
      "{:5.2f}, allocate, publish, release {:5.2f}\n",
      num_prompts, num_tokens, block_tokens, look_ns, hit_ns, cold_ns);
}

void bench_misses() {
  const std::vector<Prompt> prompts = random_prompts(1001, 64);
  KvCache cache({.num_blocks = 4096, .block_tokens = 32});
  std::vector<KvBlockId> table;
  for (size_t i = 1; i < prompts.size(); ++i) {
    compute(cache, prompts[i], 32, table);
    cache.release(table);
  }
  const double ns = median_ns(100'000, [&] {
    for (int i = 0; i < 100'000; ++i)
      CHECK_EQ(cache.match(0, prompts[0], 99, table).value, uint64_t{0});
  });
  fmt::print("  a prompt that is not there: {:.0f} ns\n", ns);
}

// A round: somebody is let in, runs, is charged and comes again.
double fair_queue_ns(uint32_t num_tenants) {
  std::mt19937 random(3);
  FairQueue queue;
  uint64_t last_id = 0;
  for (uint32_t t = 0; t < num_tenants; ++t) {
    queue.set_weight(TenantId(t), 1 + t % 5);
    queue.push_back({SequenceId(++last_id), TenantId(t), 0});
    queue.push_back({SequenceId(++last_id), TenantId(t), 0});
  }
  constexpr int kRounds = 100'000;
  return median_ns(kRounds, [&] {
    for (int i = 0; i < kRounds; ++i) {
      const TenantId tenant = queue.front()->tenant;
      queue.pop_front();
      queue.charge(tenant, 1 + random() % 300);
      queue.push_back({SequenceId(++last_id), tenant, 0});
    }
  });
}

void bench_fair_queue() {
  const double base_ns = fair_queue_ns(16);
  fmt::print("  16 tenants {:.0f}", base_ns);
  for (const uint32_t num_tenants : {256u, 4096u, 65536u}) {
    const double ns = fair_queue_ns(num_tenants);
    fmt::print(", {} tenants {:.0f} ({:.1f} x)", num_tenants, ns, ns / base_ns);
  }
  FairQueue queue;
  queue.push_back({SequenceId(1), TenantId(1), 0});
  const double charge_ns = median_ns(1'000'000, [&] {
    for (int i = 0; i < 1'000'000; ++i) queue.charge(TenantId(1), 1);
  });
  fmt::print("; one charge {:.0f}\n", charge_ns);
}

void bench_step_cost() {
  StepCost cost({.overhead_s = 3e-4, .token_s = 8e-6, .attended_s = 2.6e-10});
  std::mt19937 random(3);
  const double observe_ns = median_ns(100'000, [&] {
    for (int i = 0; i < 100'000; ++i) {
      StepWork work;
      work.add(1 + random() % 2048, random() % 32'768);
      cost.observe(work, Duration(1'000'000 + static_cast<int64_t>(random() % 9'000'000)));
    }
  });
  int64_t sum = 0;
  const double size_ns = median_ns(100'000, [&] {
    for (int i = 0; i < 100'000; ++i) sum += cost.tokens_within({}, i, 5e-3, 2048);
  });
  CHECK_GT(sum, 0);
  fmt::print("  one observation {:.0f}, one chunk size {:.0f}\n", observe_ns, size_ns);
}

void bench_router(int num_tokens) {
  const std::vector<Prompt> prompts = random_prompts(16, num_tokens);
  Router router({.num_lanes = 4, .block_tokens = 32});
  for (uint8_t lane = 0; lane < 4; ++lane) router.set_state(LaneId(lane), LaneState::serving);
  uint64_t last_id = 0;
  const double ns = median_ns(1600, [&] {
    for (int i = 0; i < 1600; ++i) {
      const RequestId id(++last_id);
      CHECK(router.route({.id = id, .prompt = prompts[static_cast<size_t>(i) % 16]}).ok());
      router.end(id);
      for (uint8_t lane = 0; lane < 4; ++lane)
        router.on_stats(LaneId(lane), {.num_taken = last_id, .num_free_blocks = 1 << 20});
    }
  });
  fmt::print("  a known prompt of {} tokens among 4 lanes: {:.1f} us\n", num_tokens, ns / 1000);
}

}  // namespace
}  // namespace chainpump::graph

int main() {
  using namespace chainpump::graph;
  fmt::print("Prefix cache, ns per token\n");
  for (const int32_t block_tokens : {16, 32}) {
    bench_prefix_cache(block_tokens, 1, 4096);
    bench_prefix_cache(block_tokens, 500, 4096);
    bench_prefix_cache(block_tokens, 16, 32'768);
  }
  bench_misses();
  fmt::print("Fair queue, ns per sequence let in, charged and queued again\n");
  bench_fair_queue();
  fmt::print("Step cost, ns\n");
  bench_step_cost();
  fmt::print("Router\n");
  bench_router(512);
  bench_router(32'768);
  return 0;
}
