// How the place of a rank is given to another process while its lanes serve: what a deployment
// (graph/deployment.h) knows of the one move that is under way.
//
// The newcomer is a standby that has loaded, else a process of its own, which loads what the place
// loads. What the rank holds is copied to it, first while the rank serves, the rest when its lanes
// are fenced; then they go on with the newcomer, as after any repair, and lack nothing.
//
//   state       what ends it                          what is asked then
//   starting    the newcomer has loaded               take_in, of the newcomer
//   preparing   it waits for what comes               copy, of the rank
//   copying     little is left that is not there      the rank's lanes begin a repair: fence, of
//   all fencing     the rank has fenced, in every lane    finish, of the rank finishing   all is
//   there, as it is at last        fence, of the newcomer, in every lane reporting   it has fenced,
//   in every lane          the place is its own: connect, of all switched    every lane of the
//   place serves        the rank is killed; moved
//
//   What may happen                          before `switched`             then
//   newcomer or rank goes, or hangs; a call  the move is given up: the     an ordinary repair; the
//   fails; a deadline; the rank's lanes      newcomer is killed, the rank  old rank is killed
//   before begin another repair; a new coordinator  keeps its place               it
//
// Who is killed by a move is no end that counts. Plain data; the steps are in deployment_move.cc.
#pragma once

#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct MoveLimits {
  Duration prepare_max = std::chrono::seconds(5);
  Duration copy_silence_max = std::chrono::seconds(10);  // without progress
  Duration rest_max = std::chrono::seconds(5);           // while the lanes wait: each step
};

struct RankMove {
  enum class State : uint8_t {
    starting,
    preparing,
    copying,
    fencing,
    finishing,
    reporting,
    switched
  };
  uint32_t number = 0;  // counted by the coordinator: an answer to an earlier one's call is void
  RankId place;
  ProcessId from;
  ProcessId to;
  State state = State::starting;
  std::optional<TimePoint> deadline = {};  // while a process starts it has its own
  PlanEpoch epoch = {};                    // of the repair in which the place changes hands
  std::vector<LaneId> fenced = {};         // by the rank, then by the newcomer
};

}  // namespace chainpump::graph
