// Who of several coordinators leads, as one of them sees it: a pure core over a store with leases.
// A candidate has a lease, and leads once the store has given it the leader's key, which goes when
// the lease does. The shell (actors/store/leadership) carries the actions out; each is answered,
// also by a failure, and there is one of each kind at a time.
//
//   state    event                                   what is done             next state
//   outside  start; retry_after a failure            grant                    outside
//            granted                                 campaign                 waiting
//   waiting  another leads                           campaign in look_every   waiting
//            a campaign has failed                   campaign in retry_after  waiting
//            renewed to nothing, no such lease       grant                    outside
//            won, and the lease cannot have run out  lead                     leading
//            won, and it may have                    grant                    outside
//   leading  renewed to nothing                      step_down                over
//            the lease may have run out              step_down                over
//   over     -
//   waiting, leading: renew, renew_every after the last one was asked, or retry_after it has failed
//
// A lease lasts from when it was granted or renewed, which is some time after that was asked; so it
// lasts at least until `asked` + its time, and a leader that has not been told so much steps down
// `margin` before, whatever it still waits for. A process that was stopped meanwhile finds itself
// too late by its own clock. What it had sent before that the store refuses by the term: its
// leader's key was created at another revision.
// Pure; one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"

namespace chainpump::graph {

struct ElectionLimits {
  Duration renew_every = std::chrono::milliseconds(500);
  Duration retry_after = std::chrono::milliseconds(100);
  Duration look_every = std::chrono::milliseconds(100);
  Duration margin = std::chrono::milliseconds(300);
};

class Election {
 public:
  // Events.
  struct Granted {
    int64_t lease;
    Duration ttl;
    TimePoint asked;
  };
  struct Renewed {
    int64_t lease;
    Duration ttl;  // 0: it had run out
    TimePoint asked;
  };
  struct Won {
    int64_t lease;
    int64_t term;  // greater than that of any leader before
  };
  struct Lost {
    int64_t lease;
  };  // another leads
  struct NoLease {
    int64_t lease;
  };  // the campaign says so
  struct GrantFailed {};
  struct RenewFailed {};
  struct CampaignFailed {};
  using Event =
      std::variant<Granted, Renewed, Won, Lost, NoLease, GrantFailed, RenewFailed, CampaignFailed>;

  enum class ActionKind : uint8_t { grant, renew, campaign, lead, step_down };
  struct Action {
    ActionKind kind;
    int64_t lease = 0;     // with renew and campaign
    int64_t term = 0;      // with lead
    std::string why = {};  // with step_down
    bool operator==(const Action&) const = default;
  };
  enum class State : uint8_t { outside, waiting, leading, over };

  explicit Election(const ElectionLimits& limits) : limits_(limits) {}

  std::vector<Action> start(TimePoint now);
  std::vector<Action> step(const Event& event, TimePoint now);
  /// To be called when next_deadline() has come.
  std::vector<Action> on_time(TimePoint now);
  std::optional<TimePoint> next_deadline() const;

  State state() const { return state_; }
  int64_t term() const { return term_; }  // of a leader, also once it is over
  /// Until when nobody else can lead, as far as is known.
  TimePoint until() const { return until_; }

 private:
  using Actions = std::vector<Action>;
  void on(const Granted& event, TimePoint now, Actions& actions);
  void on(const Renewed& event, TimePoint now, Actions& actions);
  void on(const Won& event, TimePoint now, Actions& actions);
  void on(const Lost& event, TimePoint now, Actions& actions);
  void on(const NoLease& event, TimePoint now, Actions& actions);
  void on(const GrantFailed& event, TimePoint now, Actions& actions);
  void on(const RenewFailed& event, TimePoint now, Actions& actions);
  void on(const CampaignFailed& event, TimePoint now, Actions& actions);

  /// What is due, in the state that it is now.
  void advance(TimePoint now, Actions& actions);
  void lose_lease(const char* why, Actions& actions);

  ElectionLimits limits_;
  State state_ = State::outside;
  int64_t lease_ = 0;
  int64_t term_ = 0;
  TimePoint until_;
  // When the next call of its kind is due; nothing while one is under way.
  std::optional<TimePoint> grant_at_;
  std::optional<TimePoint> renew_at_;
  std::optional<TimePoint> campaign_at_;
};

}  // namespace chainpump::graph
