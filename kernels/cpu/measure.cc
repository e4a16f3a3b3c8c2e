#include "kernels/cpu/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/dispatch.h"

namespace chainpump::kernels::cpu {
namespace {

constexpr int64_t kSweepBytes = int64_t{64} << 20;  // beyond the caches that one machine gives us
constexpr double kSpinSeconds = 0.002;
constexpr int kSpinTries = 4;  // the best of them, so that a passing disturbance does not count

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Shortest of `tries` runs of `work` on the team.
template <typename Work>
double best_time(Team& team, int tries, Work work) {
  double best = 1e9;
  for (int i = 0; i < tries; ++i) {
    const double start = seconds();
    team.run([&](TeamMember& member) { work(member); });
    best = std::min(best, seconds() - start);
  }
  return best;
}

double read_rate(const KernelTable& table, Team& team) {
  AlignedBuffer buffer(static_cast<size_t>(kSweepBytes));
  std::byte* data = buffer.data();
  team.run([&](TeamMember& member) {  // first touch
    const Range mine = share_of(member, kSweepBytes, 4096);
    for (int64_t at = mine.begin; at < mine.end; at += 4096) data[at] = std::byte{1};
  });
  std::atomic<uint64_t> fold{0};
  const double time = best_time(team, 3, [&](TeamMember& member) {
    const Range mine = share_of(member, kSweepBytes, 4096);
    fold ^= table.read_sweep(data + mine.begin, mine.end - mine.begin);
  });
  return static_cast<double>(kSweepBytes) / time;
}

double spin_rate(Team& team, int64_t (*spin)(int64_t)) {
  int64_t rounds = 1000;
  double time = 0;
  int64_t ops = 0;
  while (time < kSpinSeconds) {
    rounds *= 2;
    std::atomic<int64_t> total{0};
    time = best_time(team, kSpinTries, [&](TeamMember&) { total += spin(rounds); });
    ops = total / kSpinTries;
  }
  return static_cast<double>(ops) / time;
}

}  // namespace

MachineRates measure_machine(Isa isa, Team& team) {
  const KernelTable& table = kernel_table(isa);
  MachineRates rates;
  rates.num_threads = team.size();
  rates.read_bytes_per_second = read_rate(table, team);
  rates.int8_ops_per_second = spin_rate(team, table.spin_int8);
  rates.f32_ops_per_second = spin_rate(team, table.spin_f32);
  rates.bf16_ops_per_second = spin_rate(team, table.spin_bf16);
  return rates;
}

}  // namespace chainpump::kernels::cpu
