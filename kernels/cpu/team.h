// A team of threads that computes one stage. Every member runs the same function (SPMD) and they
// meet at barriers, so that a layer costs no fork and join. Members own contiguous row panels.
// The thread that made the team is member 0 and the only one that may call run().
// Between runs helpers spin briefly, then sleep; a sleeping team costs no processor time.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/beat.h"
#include "base/result.h"

namespace chainpump::kernels::cpu {

class Team;
struct TeamState;

/// One thread's view of its team during a run.
class TeamMember {
 public:
  int index() const { return index_; }
  int size() const { return size_; }
  /// Waits until every member has come here. Writes before it are seen after it by all. Member 0's
  /// is a beat.
  void barrier();

 private:
  friend class Team;
  TeamMember(TeamState* team, int index, int size) : team_(team), index_(index), size_(size) {}
  TeamState* team_;
  int index_;
  int size_;
};

/// The half-open part of [0, count) that belongs to `member`, in multiples of `granule`.
struct Range {
  int64_t begin;
  int64_t end;
};
Range share_of(const TeamMember& member, int64_t count, int64_t granule);

struct TeamOptions {
  int num_threads = 1;     // in [1, 1024]
  std::vector<int> cores;  // one per thread to pin to, or empty
  bool spin = true;        // false where threads outnumber cores: sleep at once
  Beat* beat = nullptr;    // outlives the team; may be null
};

class Team {
 public:
  /// no_room if the system refuses a thread; then none is left.
  static Result<Team> create(const TeamOptions& options);
  ~Team();
  Team(Team&&) noexcept;
  Team& operator=(Team&&) = delete;

  int size() const;
  /// Runs `work` on every member and returns when all have ended. `work` must not throw.
  void run(const std::function<void(TeamMember&)>& work);

 private:
  explicit Team(const TeamOptions& options);
  std::unique_ptr<TeamState> state_;
};

}  // namespace chainpump::kernels::cpu
