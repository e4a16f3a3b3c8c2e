#include "kernels/cpu/team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/check.h"

namespace chainpump::kernels::cpu {
namespace {

// About 20 us in a barrier and 100 us between runs: longer than a barrier inside a layer takes when
// all members run, much shorter than what a sleeper costs to be noticed in a profile.
constexpr int kBarrierSpins = 2000;
constexpr int kIdleSpins = 10000;

inline void pause() { __builtin_ia32_pause(); }

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

struct Team::State {
  int num_threads = 1;
  bool spin = true;
  alignas(64) std::atomic<uint32_t> arrived{0};
  alignas(64) std::atomic<uint32_t> phase{0};  // counts completed barriers
  alignas(64) std::atomic<uint32_t> run{0};    // counts started runs
  const std::function<void(TeamMember&)>* work = nullptr;
  bool stopping = false;
  std::vector<std::thread> helpers;

  void barrier(int spins) {
    const uint32_t mine = phase.load(std::memory_order_relaxed);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(num_threads)) {
      arrived.store(0, std::memory_order_relaxed);
      phase.store(mine + 1, std::memory_order_release);
      phase.notify_all();
    } else {
      wait_while_equal(phase, mine, spin ? spins : 0);
    }
  }

  void help(TeamMember member) {
    uint32_t seen = 0;
    while (true) {
      wait_while_equal(run, seen, spin ? kIdleSpins : 0);
      ++seen;
      if (stopping) return;
      (*work)(member);
      barrier(kBarrierSpins);
    }
  }

  void start_run() {
    run.fetch_add(1, std::memory_order_release);
    run.notify_all();
  }
};

void TeamMember::barrier() {
  if (size_ > 1) team_->state_->barrier(kBarrierSpins);
}

Range share_of(const TeamMember& member, int64_t count, int64_t granule) {
  const int64_t pieces = (count + granule - 1) / granule;
  const int64_t begin = pieces * member.index() / member.size() * granule;
  const int64_t end = pieces * (member.index() + 1) / member.size() * granule;
  return {std::min(begin, count), std::min(end, count)};
}

Team::Team(const TeamOptions& options) : state_(std::make_unique<State>()) {
  CHECK_GE(options.num_threads, 1);
  CHECK(options.cores.empty() || options.cores.size() == static_cast<size_t>(options.num_threads));
  state_->num_threads = options.num_threads;
  state_->spin = options.spin;
  if (!options.cores.empty()) pin_to_core(pthread_self(), options.cores[0]);
  for (int i = 1; i < options.num_threads; ++i) {
    TeamMember member(this, i, options.num_threads);
    state_->helpers.emplace_back([state = state_.get(), member] { state->help(member); });
    if (!options.cores.empty())
      pin_to_core(state_->helpers.back().native_handle(), options.cores[static_cast<size_t>(i)]);
  }
}

Team::~Team() {
  state_->stopping = true;
  state_->start_run();
  for (std::thread& helper : state_->helpers) helper.join();
}

int Team::size() const { return state_->num_threads; }

void Team::run(const std::function<void(TeamMember&)>& work) {
  TeamMember self(this, 0, state_->num_threads);
  if (state_->num_threads == 1) return work(self);
  state_->work = &work;
  state_->start_run();
  work(self);
  state_->barrier(kIdleSpins);
}

}  // namespace chainpump::kernels::cpu
