// One candidate's side of an election, event by event; and many candidates over a store whose
// answers are late, lost or both, of which never two lead.
#include "graph/election.h"

#include <boost/test/unit_test.hpp>
#include <map>

#include "tests/fakes/random.h"

namespace chainpump::graph {
namespace {

using Kind = Election::ActionKind;
using State = Election::State;
using std::chrono::milliseconds;

TimePoint at(int64_t ms) { return {Duration(milliseconds(ms))}; }
constexpr Duration kTtl = milliseconds(2000);

std::vector<Kind> kinds(const std::vector<Election::Action>& actions) {
  std::vector<Kind> all;
  for (const Election::Action& action : actions) all.push_back(action.kind);
  return all;
}

using Kinds = std::vector<Kind>;

/// One that leads since 10 ms, by a lease asked for at 0.
struct Leader {
  Election election{ElectionLimits()};
  Leader() {
    election.start(at(0));
    election.step(Election::Granted{7, kTtl, at(0)}, at(5));
    election.step(Election::Won{7, 100}, at(10));
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(election)

BOOST_AUTO_TEST_CASE(it_waits_until_the_leader_has_gone_and_leads) {
  Election election{ElectionLimits()};
  BOOST_TEST((kinds(election.start(at(0))) == Kinds{Kind::grant}));
  auto actions = election.step(Election::Granted{7, kTtl, at(0)}, at(5));
  BOOST_TEST((kinds(actions) == Kinds{Kind::campaign}));
  BOOST_TEST(actions[0].lease == 7);
  BOOST_TEST(election.step(Election::Lost{7}, at(8)).empty());
  BOOST_TEST((election.next_deadline() == at(108)));
  BOOST_TEST((kinds(election.on_time(at(108))) == Kinds{Kind::campaign}));
  BOOST_TEST(election.step(Election::Lost{7}, at(110)).empty());
  BOOST_TEST((kinds(election.on_time(at(500))) == Kinds{Kind::renew, Kind::campaign}));
  BOOST_TEST(election.step(Election::Renewed{7, kTtl, at(500)}, at(510)).empty());
  actions = election.step(Election::Won{7, 42}, at(520));
  BOOST_TEST((kinds(actions) == Kinds{Kind::lead}));
  BOOST_TEST(actions[0].term == 42);
  BOOST_TEST((election.state() == State::leading));
  BOOST_TEST((election.until() == at(500 + 2000 - 300)));
  BOOST_TEST((election.next_deadline() == at(1000)));
}

BOOST_AUTO_TEST_CASE(failures_are_tried_again) {
  Election election{ElectionLimits()};
  election.start(at(0));
  BOOST_TEST(election.step(Election::GrantFailed{}, at(50)).empty());
  BOOST_TEST((election.next_deadline() == at(150)));
  BOOST_TEST((kinds(election.on_time(at(150))) == Kinds{Kind::grant}));
  election.step(Election::Granted{7, kTtl, at(150)}, at(160));
  election.step(Election::CampaignFailed{}, at(170));
  BOOST_TEST((kinds(election.on_time(at(270))) == Kinds{Kind::campaign}));
  BOOST_TEST((kinds(election.on_time(at(650))) == Kinds{Kind::renew}));
  BOOST_TEST(election.step(Election::RenewFailed{}, at(700)).empty());
  BOOST_TEST((kinds(election.on_time(at(800))) == Kinds{Kind::renew}));
}

BOOST_AUTO_TEST_CASE(who_waits_and_loses_its_lease_gets_another) {
  for (const Election::Event& news : {Election::Event(Election::Renewed{7, Duration(0), at(390)}),
                                      Election::Event(Election::NoLease{7})}) {
    Election election{ElectionLimits()};
    election.start(at(0));
    election.step(Election::Granted{7, kTtl, at(0)}, at(5));
    BOOST_TEST((kinds(election.step(news, at(400))) == Kinds{Kind::grant}));
    BOOST_TEST((kinds(election.step(Election::Granted{8, kTtl, at(400)}, at(420))) ==
                Kinds{Kind::campaign}));
    // What is heard of the one before is void.
    BOOST_TEST(election.step(Election::Won{7, 9}, at(430)).empty());
    BOOST_TEST((election.state() == State::waiting));
  }
}

BOOST_AUTO_TEST_CASE(a_leader_steps_down_before_its_lease_can_have_run_out) {
  {
    Leader leader;  // nobody answers its renewals
    BOOST_TEST((kinds(leader.election.on_time(at(500))) == Kinds{Kind::renew}));
    BOOST_TEST((leader.election.next_deadline() == at(1700)));
    BOOST_TEST(leader.election.on_time(at(1699)).empty());
    BOOST_TEST((kinds(leader.election.on_time(at(1700))) == Kinds{Kind::step_down}));
    BOOST_TEST((leader.election.state() == State::over));
    BOOST_TEST(!leader.election.next_deadline());
    BOOST_TEST(leader.election.step(Election::Renewed{7, kTtl, at(500)}, at(1701)).empty());
  }
  {
    Leader leader;  // it was stopped: an answer that it finds then is too late
    leader.election.on_time(at(500));
    BOOST_TEST((kinds(leader.election.step(Election::Renewed{7, kTtl, at(500)}, at(9000))) ==
                Kinds{Kind::step_down}));
  }
  {
    Leader leader;
    leader.election.on_time(at(500));
    BOOST_TEST((kinds(leader.election.step(Election::Renewed{7, Duration(0), at(500)}, at(510))) ==
                Kinds{Kind::step_down}));
  }
}

BOOST_AUTO_TEST_CASE(who_hears_too_late_that_it_has_won_does_not_lead) {
  Election election{ElectionLimits()};
  election.start(at(0));
  election.step(Election::Granted{7, kTtl, at(0)}, at(5));
  BOOST_TEST((kinds(election.on_time(at(500))) == Kinds{Kind::renew}));
  BOOST_TEST((kinds(election.step(Election::Won{7, 3}, at(1700))) == Kinds{Kind::grant}));
  BOOST_TEST((election.state() == State::outside));
}

// Candidates, a store, and a network between them that delays and loses. Each stops now and then,
// for longer than a lease lasts.
struct World {
  static constexpr int kNum = 3;
  struct Call {
    TimePoint arrives;
    int who;
    Election::Action action;
    TimePoint asked;
  };
  struct News {
    TimePoint arrives;
    Election::Event event;
  };
  struct Member {
    Election election{ElectionLimits()};
    std::vector<News> news;
    TimePoint stopped_until;
    bool leads = false;
    int64_t term = 0;
  };

  explicit World(uint64_t seed) : random(seed) {
    for (int i = 0; i < kNum; ++i) members.emplace_back();
    for (int i = 0; i < kNum; ++i) take(i, members[i].election.start(now));
  }

  void take(int who, const std::vector<Election::Action>& actions) {
    for (const Election::Action& action : actions) {
      Member& member = members[who];
      if (action.kind == Kind::lead) {
        member.leads = true;
        member.term = action.term;
        BOOST_TEST(action.term > last_term);
        last_term = action.term;
        ++num_terms;
      } else if (action.kind == Kind::step_down) {
        member = Member();  // its process is followed by another
        take(who, member.election.start(now));
        return;
      } else {
        calls.push_back({now + delay(), who, action, now});
      }
    }
  }

  Duration delay() {
    return milliseconds(random.pick(20) == 0 ? random.pick(1500) : 1 + random.pick(20));
  }

  /// The store carries it out, and answers; a client that has waited too long is told of a failure.
  void carry_out(const Call& call) {
    const bool lost = random.pick(25) == 0;
    std::optional<Election::Event> answer;
    const int64_t lease = call.action.lease;
    switch (call.action.kind) {
      case Kind::grant: {
        leases[++last_lease] = now + kTtl;
        answer = Election::Granted{last_lease, kTtl, call.asked};
        break;
      }
      case Kind::renew:
        if (leases.contains(lease)) leases[lease] = now + kTtl;
        answer = Election::Renewed{lease, leases.contains(lease) ? kTtl : Duration(0), call.asked};
        break;
      case Kind::campaign:
        if (!leases.contains(lease)) {
          answer = Election::NoLease{lease};
        } else if (leader == 0 || leader == lease) {
          if (leader == 0) term = ++revision;
          leader = lease;
          answer = Election::Won{lease, term};
        } else {
          answer = Election::Lost{lease};
        }
        break;
      case Kind::lead:
      case Kind::step_down:
        break;
    }
    Election::Event failed =
        call.action.kind == Kind::grant   ? Election::Event(Election::GrantFailed{})
        : call.action.kind == Kind::renew ? Election::Event(Election::RenewFailed{})
                                          : Election::Event(Election::CampaignFailed{});
    const TimePoint given_up = call.asked + milliseconds(1300);
    const TimePoint arrives = now + delay();
    const bool fails = lost || arrives > given_up;
    members[call.who].news.push_back({fails ? given_up : arrives, fails ? failed : *answer});
  }

  void run(TimePoint until) {
    for (; now < until; now = now + milliseconds(1)) {
      for (auto lease = leases.begin(); lease != leases.end();) {
        if (now < lease->second) {
          ++lease;
          continue;
        }
        if (leader == lease->first) leader = 0;
        lease = leases.erase(lease);
      }
      for (size_t i = 0; i < calls.size();) {
        if (now < calls[i].arrives) {
          ++i;
          continue;
        }
        const Call call = calls[i];
        calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(i));
        carry_out(call);
      }
      for (int i = 0; i < kNum; ++i) look_at(i);
      int num_leading = 0;
      for (const Member& member : members)
        num_leading += member.leads && now < member.election.until();
      BOOST_TEST_REQUIRE(num_leading <= 1);
    }
  }

  void look_at(int who) {
    Member& member = members[who];
    if (now < member.stopped_until) return;
    if (random.pick(6000) == 0) member.stopped_until = now + milliseconds(random.pick(6000));
    for (size_t i = 0; i < members[who].news.size();) {
      if (now < members[who].news[i].arrives) {
        ++i;
        continue;
      }
      const News news = members[who].news[i];
      members[who].news.erase(members[who].news.begin() + static_cast<std::ptrdiff_t>(i));
      take(who, members[who].election.step(news.event, now));
    }
    const auto due = members[who].election.next_deadline();
    if (due && now >= *due) take(who, members[who].election.on_time(now));
  }

  fakes::Random random;
  TimePoint now = at(1000);
  std::vector<Member> members;
  std::vector<Call> calls;
  std::map<int64_t, TimePoint> leases;
  int64_t last_lease = 0, leader = 0, revision = 0, term = 0, last_term = 0;
  int num_terms = 0;
};

BOOST_AUTO_TEST_CASE(never_two_lead_and_somebody_does) {
  int num_terms = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    BOOST_TEST_CONTEXT("seed " << seed) {
      World world(seed);
      world.run(at(40'000));
      BOOST_TEST(world.num_terms > 0);
      num_terms += world.num_terms;
    }
  }
  BOOST_TEST(num_terms > 120);  // leaders change, or nothing was tried
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::graph
