// Who may be preempted: whatever microbatch takes the blocks of a running sequence, somebody who
// ranks higher must have needed one. Without that rule two sequences can take each other's blocks
// for ever. Told what a lane's sequencer is told and says; knows nothing of its insides. One
// thread.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "graph/request.h"

namespace chainpump::sim {

class PreemptionCheck {
 public:
  explicit PreemptionCheck(int32_t block_tokens) : block_tokens_(block_tokens) {}

  /// Taken in by the sequencer. top_k, which names requests in a run, is its id.
  void submitted(const graph::Request& request);
  /// By a cancel, its deadline or its last token: when it is released, nobody took its blocks.
  void ended(const graph::Choice& choice);
  void ended(RequestId request);
  /// The next microbatch. What is wrong with it, or empty.
  std::string formed(const graph::Microbatch& microbatch);

 private:
  struct Rank {
    int32_t priority = 0;
    uint64_t age = 0;
    bool higher_than(const Rank& other) const {
      return priority != other.priority ? priority > other.priority : age < other.age;
    }
  };
  struct Name {
    uint64_t request = 0;
    uint32_t choice = 0;
    auto operator<=>(const Name&) const = default;
  };
  struct Alive {
    RequestId request;
    Rank rank;
  };
  struct Held {
    Name name;
    int32_t num_known = 0;  // when it was described
    int32_t num_sent = 0;
    bool scoring = false;
  };
  bool needs_block(const Held& held) const;

  int32_t block_tokens_;
  uint64_t last_age_ = 0;
  std::map<Name, Alive> alive_;
  std::map<SequenceId, Held> held_;
};

}  // namespace chainpump::sim
