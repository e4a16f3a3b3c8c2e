// The coordinator's decisions, as a pure core: it brings a plan's ranks up, declares deaths, and
// takes everything down. It is not on the token path. The shell (actors/coordinator) carries out
// the actions and reports what happened as events; time is handed in.
//
//   rank state   event that ends it     what is done then
//   starting     greeted                Load
//   loading      loaded                 when all ranks are loaded: Connect to every rank
//   connecting   connected              when all ranks are connected: Serve
//   serving      -
//   leaving      exited                 when all ranks have left: Stopped
//   any but leaving, gone:  failed, exited, or its deadline passed -> Fail, then as for stop
//   stop requested: Shutdown to every rank that can hear it, Kill at the deadline
//
// A dead rank ends the whole deployment, all its lanes, with its reason; repair is not part of this
// core.
// Pure; one thread.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/plan.h"

namespace chainpump::graph {

struct DeploymentLimits {
  Duration greet_max = std::chrono::seconds(10);
  Duration load_silence_max = std::chrono::seconds(30);  // without progress
  Duration connect_max = std::chrono::seconds(30);
  Duration leave_max = std::chrono::seconds(2);
  Duration late_look_max = std::chrono::seconds(1);  // later than that, the looker was stopped too
};

class Deployment {
 public:
  // Events.
  struct Greeted {
    RankId rank;
  };
  struct LoadProgressed {
    RankId rank;
  };
  struct Loaded {
    RankId rank;
    std::string numerics_id;
  };
  struct Connected {
    RankId rank;
  };
  struct Failed {
    RankId rank;
    Error error;
  };  // it said so itself
  struct Exited {
    RankId rank;
    std::string how;
  };  // "killed by signal 9"
  struct StopRequested {};
  using Event =
      std::variant<Greeted, LoadProgressed, Loaded, Connected, Failed, Exited, StopRequested>;

  enum class ActionKind : uint8_t {
    spawn,
    load,
    connect,
    serve,  // for the whole deployment: every rank is connected
    fail,   // for the whole deployment: tell whoever waits why; at most once
    shutdown,
    kill,
    stopped,  // for the whole deployment: every rank has left; nothing follows
  };
  struct Action {
    ActionKind kind;
    RankId rank{};
    Error error{};  // with fail
  };

  enum class Phase : uint8_t { starting, serving, stopping, stopped };

  Deployment(const Plan& plan, const DeploymentLimits& limits);

  /// Spawns every rank. Called once, first.
  std::vector<Action> start(TimePoint now);
  std::vector<Action> step(const Event& event, TimePoint now);
  /// To be called when next_deadline() has come. If it is called much later, its caller was stopped
  /// or starved, and the news that it waits for has waited, too: it gets another moment to come.
  std::vector<Action> on_time(TimePoint now);
  std::optional<TimePoint> next_deadline() const;
  Phase phase() const { return phase_; }

 private:
  enum class RankState : uint8_t { starting, loading, loaded, connecting, serving, leaving, gone };
  struct Rank {
    std::string name;  // "stage 'front'"
    RankState state = RankState::starting;
    std::optional<TimePoint> deadline;
    std::string numerics_id;
  };

  Rank& at(RankId rank);
  bool all_in(RankState state) const;
  void on_loaded(const Loaded& event, TimePoint now, std::vector<Action>& actions);
  void on_connected(const Connected& event, std::vector<Action>& actions);
  void on_exited(const Exited& event, TimePoint now, std::vector<Action>& actions);
  void fail(Error error, TimePoint now, std::vector<Action>& actions);
  void stop(TimePoint now, std::vector<Action>& actions);

  DeploymentLimits limits_;
  Phase phase_ = Phase::starting;
  std::vector<Rank> ranks_;
};

}  // namespace chainpump::graph
