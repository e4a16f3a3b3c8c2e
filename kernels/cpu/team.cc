#include "kernels/cpu/team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "base/thread.h"

namespace chainpump::kernels::cpu {
namespace {

// About 20 us in a barrier and 100 us between runs: longer than a barrier inside a layer takes when
// all members run, much shorter than what a sleeper costs to be noticed in a profile.
constexpr int kBarrierSpins = 2000;
constexpr int kIdleSpins = 10000;

inline void pause() { __builtin_ia32_pause(); }

// One member's mailbox at barriers. In round r the member 2^r before it (around the ring) writes
// the barrier's number there, so after log2(size) rounds each has heard, by others, of all.
// Numbers only grow, so nothing is ever reset and a quick sender may be one barrier ahead. Each
// member spins on a line of its own, which one other writes per round.
constexpr int kRoundsMax = 10;

struct alignas(64) Mailbox {
  std::atomic<uint32_t> heard[kRoundsMax]{};
  std::atomic<uint32_t> asleep{0};  // whether its owner may be sleeping on one of `heard`

  // The stores before the flag is read, and the flag before the sleeper reads: one of the two sees
  // the other, so nobody sleeps through.
  void tell(int round, uint32_t number) {
    heard[round].store(number, std::memory_order_seq_cst);
    if (asleep.load(std::memory_order_seq_cst) != 0) heard[round].notify_one();
  }

  void wait_for(int round, uint32_t number, int spins) {
    const auto reached = [&](uint32_t value) { return static_cast<int32_t>(value - number) >= 0; };
    for (int i = 0; i < spins; ++i) {
      if (reached(heard[round].load(std::memory_order_acquire))) return;
      pause();
    }
    asleep.store(1, std::memory_order_seq_cst);
    while (true) {
      const uint32_t seen = heard[round].load(std::memory_order_seq_cst);
      if (reached(seen)) break;
      heard[round].wait(seen, std::memory_order_acquire);
    }
    asleep.store(0, std::memory_order_relaxed);
  }
};

// What only its owner touches, apart from the mailbox that others write.
struct alignas(64) Barriers {
  uint32_t passed = 0;
};

// Returns once `word` differs from `old`; spins at first, then sleeps in the kernel.
void wait_while_equal(const std::atomic<uint32_t>& word, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

void pin_to_core(pthread_t thread, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(core), &set);
  // A core outside the container's set is refused; an unpinned thread is slower, not wrong.
  static_cast<void>(pthread_setaffinity_np(thread, sizeof(set), &set));
}

}  // namespace

struct TeamState {
  explicit TeamState(int num_threads)
      : mailboxes(static_cast<size_t>(num_threads)), barriers(static_cast<size_t>(num_threads)) {}

  std::vector<Mailbox> mailboxes;
  std::vector<Barriers> barriers;
  alignas(64) std::atomic<uint32_t> run{0};  // counts started runs
  bool spin = true;
  Beat* beat = nullptr;
  const std::function<void(TeamMember&)>* work = nullptr;
  bool stopping = false;
  std::vector<std::thread> helpers;

  void barrier(int index, int spins) {
    const auto size = static_cast<int>(mailboxes.size());
    const uint32_t number = ++barriers[static_cast<size_t>(index)].passed;
    Mailbox& mine = mailboxes[static_cast<size_t>(index)];
    for (int round = 0, distance = 1; distance < size; ++round, distance *= 2) {
      mailboxes[static_cast<size_t>((index + distance) % size)].tell(round, number);
      mine.wait_for(round, number, spins);
    }
  }

  void help(TeamMember member) {
    uint32_t seen = 0;
    while (true) {
      wait_while_equal(run, seen, spin ? kIdleSpins : 0);
      ++seen;
      if (stopping) return;
      (*work)(member);
      barrier(member.index(), kBarrierSpins);
    }
  }

  void start_run() {
    run.fetch_add(1, std::memory_order_seq_cst);
    run.notify_all();
  }
};

void TeamMember::barrier() {
  if (index_ == 0 && team_->beat) team_->beat->tick();
  if (size_ > 1) team_->barrier(index_, kBarrierSpins);
}

Range share_of(const TeamMember& member, int64_t count, int64_t granule) {
  const int64_t pieces = (count + granule - 1) / granule;
  const int64_t begin = pieces * member.index() / member.size() * granule;
  const int64_t end = pieces * (member.index() + 1) / member.size() * granule;
  return {std::min(begin, count), std::min(end, count)};
}

Team::Team(const TeamOptions& options) : state_(std::make_unique<TeamState>(options.num_threads)) {
  CHECK_GE(options.num_threads, 1);
  CHECK_LE(options.num_threads, 1 << kRoundsMax);
  CHECK(options.cores.empty() || options.cores.size() == static_cast<size_t>(options.num_threads));
  state_->spin = options.spin;
  state_->beat = options.beat;
}

Result<Team> Team::create(const TeamOptions& options) {
  Team team(options);  // its end, also before it is whole, ends the helpers that it has
  TeamState* const state = team.state_.get();
  for (int i = 1; i < options.num_threads; ++i) {
    const TeamMember member(state, i, options.num_threads);
    ASSIGN_OR_RETURN(std::thread helper, start_thread("a thread that computes",
                                                      [state, member] { state->help(member); }));
    state->helpers.push_back(std::move(helper));
    if (!options.cores.empty())
      pin_to_core(state->helpers.back().native_handle(), options.cores[static_cast<size_t>(i)]);
  }
  if (!options.cores.empty()) pin_to_core(pthread_self(), options.cores[0]);
  return team;
}

Team::Team(Team&&) noexcept = default;

Team::~Team() {
  if (!state_) return;
  state_->stopping = true;
  state_->start_run();
  for (std::thread& helper : state_->helpers) helper.join();
}

int Team::size() const { return static_cast<int>(state_->mailboxes.size()); }

void Team::run(const std::function<void(TeamMember&)>& work) {
  TeamMember self(state_.get(), 0, size());
  if (size() == 1) return work(self);
  state_->work = &work;
  state_->start_run();
  work(self);
  state_->barrier(0, kIdleSpins);
}

}  // namespace chainpump::kernels::cpu
