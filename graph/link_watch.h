// Which links have fallen silent though both their ends work: a network that carries nothing, one
// way or both, and says nothing about it. A pure core of the coordinator's. Both ends of each link
// count the messages that they spoke and heard, and say when they looked last; they are asked for
// that with every beat (graph/failure_detector.h, which finds ranks that hang).
//
//   a direction  its speaker: spoken more   its hearer: heard it all   less, and looked late
//   level        -> behind since now        -                          -
//   behind       behind                     -> level, or behind anew   told; behind since now
//                                           of what came since
// Late is silent_max after it was spoken, or after the message before it came. A stage in a long
// step does not look, and is not blamed for what it has not heard; nor is anybody when who asks was
// stopped. A message has silent_max to come; so a network that needs longer for one frame counts as
// silent.
//
// What was spoken is not heard again on the next incarnation of a link: each begins level.
// Pure; one thread.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"

namespace chainpump::graph {

/// What one end of a link has counted since it was made.
struct LinkEnd {
  EdgeId link;
  LinkIncarnation incarnation;
  bool is_sender = false;  // of frames; credits go the other way
  uint64_t spoken = 0;     // messages that were handed to the network
  uint64_t heard = 0;      // that came out of it
  TimePoint looked;        // for some, at that time or later
};

class LinkWatch {
 public:
  struct Silent {
    EdgeId link;
    bool frames = false;   // that do not arrive; otherwise the credits that go back
    uint64_t missing = 0;  // messages
    Duration silent_for{0};
  };

  explicit LinkWatch(Duration silent_max) : silent_max_(silent_max) {}

  /// What a rank said of its links' ends.
  std::vector<Silent> on_answer(const std::vector<LinkEnd>& ends, TimePoint now);

 private:
  struct Direction {
    uint64_t spoken = 0;
    uint64_t heard = 0;
    std::optional<TimePoint> behind_since = {};
    uint64_t wanted = 0;  // what had been spoken then
  };
  struct Link {
    LinkIncarnation incarnation;
    Direction frames;
    Direction credits;
  };
  static void on_spoken(Direction& direction, uint64_t spoken, TimePoint now);
  std::optional<Silent> on_heard(Direction& direction, uint64_t heard, TimePoint looked,
                                 TimePoint now) const;

  const Duration silent_max_;
  std::map<EdgeId, Link> links_;
};

}  // namespace chainpump::graph
