#include "graph/step_account.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace chainpump::graph {
namespace {

constexpr int kFirstSteps = 32;
constexpr int kMemorySteps = 64;
constexpr double kBehind = 3;
constexpr double kSlow = 8;
constexpr Duration kLongerMin = std::chrono::milliseconds(2);

std::pair<int, int> kind_of(const StepWork& work) {
  const double far = work.attended / static_cast<double>(work.tokens);
  return {std::bit_width(static_cast<uint64_t>(work.tokens)),
          (std::bit_width(static_cast<uint64_t>(std::max(far, 0.0))) + 1) / 2};
}

}  // namespace

void StepAccount::Kind::learn(double spent_s) {
  if (num_learnt < kMemorySteps) ++num_learnt;
  log_s += (std::log(spent_s) - log_s) / num_learnt;
}

void StepAccount::add(const StepWork& work, Duration spent) {
  if (work.tokens <= 0 || spent <= Duration(0)) return;
  Kind& kind = kinds_[kind_of(work)];
  const double spent_s = to_seconds(spent);
  if (kind.num_learnt < kFirstSteps) return kind.learn(spent_s);
  const double expected_s = std::exp(kind.log_s);
  const auto expected =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(expected_s));
  const double times = spent_s / expected_s;
  const bool is_longer = spent - expected >= kLongerMin;
  ++totals_.steps;
  totals_.behind += is_longer && times > kBehind;
  totals_.slow += is_longer && times > kSlow;
  totals_.measured += spent;
  totals_.expected += expected;
  if (times <= kBehind) kind.learn(spent_s);
}

}  // namespace chainpump::graph
