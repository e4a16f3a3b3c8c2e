// Coordinators that stand for election at a real store: one leads, until it goes or cannot reach
// the store.
#include "actors/store/leadership.h"

#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <mutex>

#include "tests/fakes/etcd_server.h"

namespace chainpump::actors {
namespace {

constexpr Duration kPatience = std::chrono::seconds(20);

/// One of them, and what it was told.
struct Stander {
  Stander(const fakes::EtcdServer& server, const char* name) {
    auto started = Leadership::start(
        {.servers = server.servers(), .keys = {"/test/x"}, .self = {name, 7}},
        {.on_lead = [this](Fence f) { note([&] { fence = std::move(f); }); },
         .on_step_down =
             [this](const std::string&) { note([&] { stepped_down = steady_clock().now(); }); },
         .on_other = [this](const Candidate& who) { note([&] { other = who; }); },
         .on_store = [this](const std::string& why) { note([&] { store_why = why; }); }});
    BOOST_TEST_REQUIRE(started.ok());
    leadership = *std::move(started);
  }
  template <typename F>
  void note(F change) {
    const std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
  template <typename F>
  bool wait(F is_so, Duration patience = kPatience) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, patience, is_so);
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Fence> fence;
  std::optional<TimePoint> stepped_down;
  std::optional<Candidate> other;
  std::string store_why;
  std::unique_ptr<Leadership> leadership;  // ends first
};

}  // namespace

BOOST_AUTO_TEST_SUITE(leadership, *boost::unit_test::precondition(fakes::EtcdServer::is_there))

BOOST_AUTO_TEST_CASE(the_next_one_leads_when_the_first_has_gone) {
  const fakes::EtcdServer server;
  auto first = std::make_unique<Stander>(server, "a");
  BOOST_TEST_REQUIRE(first->wait([&] { return first->fence.has_value(); }));
  Stander second(server, "b");
  BOOST_TEST_REQUIRE(second.wait([&] { return second.other.has_value(); }));
  BOOST_TEST((*second.other == Candidate{"a", 7}));
  const auto client = server.client_of();
  const auto found = find_candidates(*client, {"/test/x"}, steady_clock().now() + kPatience);
  BOOST_TEST_REQUIRE(found.ok());
  BOOST_TEST((found->all == std::vector<Candidate>{{"a", 7}, {"b", 7}}));
  BOOST_TEST((found->leader == Candidate{"a", 7}));
  // Longer than a lease lasts unless it is kept.
  BOOST_TEST(!second.wait([&] { return second.fence.has_value(); }, std::chrono::seconds(3)));
  BOOST_TEST(!first->stepped_down);
  const Fence before = *first->fence;
  first.reset();
  BOOST_TEST_REQUIRE(second.wait([&] { return second.fence.has_value(); }));
  BOOST_TEST(second.fence->term > before.term);
  FencedKey late(server.client_of(),
                 {{"/test/x"}, before.term, [] { return steady_clock().now() + kPatience; }},
                 "/test/x/record");
  BOOST_TEST((late.write("x").error().code == ErrorCode::cancelled));
  FencedKey now(server.client_of(), *second.fence, "/test/x/record");
  BOOST_TEST(now.write("x").ok());
}

BOOST_AUTO_TEST_CASE(who_cannot_reach_the_store_steps_down_in_time) {
  fakes::EtcdServer server;
  Stander leads(server, "a");
  BOOST_TEST_REQUIRE(leads.wait([&] { return leads.fence.has_value(); }));
  Stander waits(server, "b");
  BOOST_TEST_REQUIRE(waits.wait([&] { return waits.other.has_value(); }));
  const TimePoint stopped = steady_clock().now();
  server.stop();
  BOOST_TEST_REQUIRE(leads.wait([&] { return leads.stepped_down.has_value(); }));
  // The lease lasted two seconds at most when the store was stopped.
  BOOST_TEST((*leads.stepped_down - stopped < std::chrono::milliseconds(2000)));
  BOOST_TEST((*leads.stepped_down >= leads.fence->until()));
  BOOST_TEST(leads.wait([&] { return !leads.store_why.empty(); }));
  server.go_on();
  BOOST_TEST_REQUIRE(waits.wait([&] { return waits.fence.has_value(); }));
  BOOST_TEST(waits.fence->term > leads.fence->term);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
