// Whom a fetch of weights asks, over sources that are slow, damaged, gone or come back.
#include "graph/weight_fetch.h"

#include <boost/test/unit_test.hpp>
#include <map>
#include <set>

#include "tests/fakes/random.h"

namespace chainpump::graph {
namespace {

using namespace std::chrono_literals;
using Ask = WeightFetch::Ask;
using Came = WeightFetch::Came;

std::vector<uint32_t> pieces(uint32_t count) {
  std::vector<uint32_t> all(count);
  for (uint32_t i = 0; i < count; ++i) all[i] = i;
  return all;
}

const std::vector<uint8_t> kAll(64, 0xff);

struct World {
  explicit World(uint32_t count, std::vector<std::string> sources = {"a", "b"})
      : fetch(pieces(count), count, std::move(sources), {}, TimePoint{}) {}

  std::vector<Ask> next() { return fetch.next(now); }
  void right(const Ask& ask) { fetch.on_piece(ask, Came::right, {}, now); }
  void wrong(const Ask& ask) { fetch.on_piece(ask, Came::wrong, "sent rubbish", now); }
  void lost(const Ask& ask) { fetch.on_piece(ask, Came::lost, "went away", now); }
  std::string why() const {
    const std::optional<Error> failure = fetch.failure(now);
    return failure ? failure->message : "";
  }

  TimePoint now;
  WeightFetch fetch;
};

BOOST_AUTO_TEST_SUITE(weight_fetch)

BOOST_AUTO_TEST_CASE(who_has_them_is_asked_a_few_at_a_time_in_order) {
  World world(20);
  BOOST_TEST((world.next() == std::vector<Ask>{{0}, {1}}));
  BOOST_TEST(world.next().empty());
  world.fetch.on_has(0, kAll);
  BOOST_TEST((world.next() == std::vector<Ask>{{0, 0}, {0, 1}, {0, 2}, {0, 3}}));
  world.fetch.on_has(1, {0xf8});  // pieces 3 to 7
  BOOST_TEST((world.next() == std::vector<Ask>{{1, 4}, {1, 5}, {1, 6}, {1, 7}}));
  BOOST_TEST(world.next().empty());
  world.right({0, 1});
  BOOST_TEST((world.next() == std::vector<Ask>{{0, 8}}));
}

BOOST_AUTO_TEST_CASE(what_is_lost_is_asked_of_another) {
  World world(2);
  world.next();
  world.fetch.on_has(0, kAll);
  BOOST_TEST(world.next().size() == 2u);
  world.fetch.on_has(1, kAll);
  world.lost({0, 0});
  world.lost({0, 1});
  BOOST_TEST((world.next() == std::vector<Ask>{{1, 0}, {1, 1}}));
  world.now = world.now + 1s;
  BOOST_TEST((world.next() == std::vector<Ask>{{0}}));  // again what it has
  world.right({1, 0});
  world.right({1, 1});
  BOOST_TEST(world.fetch.done());
  BOOST_TEST(world.next().empty());
}

BOOST_AUTO_TEST_CASE(who_sends_rubbish_is_asked_no_more) {
  World world(8);
  world.next();
  world.fetch.on_has(0, kAll);
  for (const Ask& ask : world.next()) world.wrong(ask);
  BOOST_TEST(world.next().empty());
  BOOST_TEST(world.why() == "");
  world.fetch.on_has(1, kAll);
  for (int i = 0; i < 2; ++i)
    for (const Ask& ask : world.next()) {
      BOOST_TEST(ask.source == 1u);
      world.right(ask);
    }
  BOOST_TEST(world.fetch.done());

  World alone(8, {"a"});
  alone.next();
  alone.fetch.on_has(0, kAll);
  for (const Ask& ask : alone.next()) alone.wrong(ask);
  BOOST_TEST(alone.why() == "nobody has them undamaged: a sent rubbish");
  BOOST_TEST((alone.fetch.failure(alone.now)->code == ErrorCode::bad_file));
}

BOOST_AUTO_TEST_CASE(a_piece_that_is_wrong_everywhere_ends_it) {
  World world(1, {"a", "b", "c", "d"});
  for (const Ask& ask : world.next()) world.fetch.on_has(ask.source, kAll);
  int tries = 0;
  while (world.why().empty()) {
    for (const Ask& ask : world.next()) world.wrong(ask), ++tries;
    BOOST_REQUIRE(tries <= WeightFetchLimits{}.tries_max);
  }
  BOOST_TEST(world.why().find("piece 0 came wrong 8 times") == 0u, world.why());
}

BOOST_AUTO_TEST_CASE(silence_ends_it) {
  World nobody(1, {});
  BOOST_TEST(nobody.why() == "no node is known to have them");
  World world(4);
  world.next();
  world.fetch.on_has(0, {});
  world.fetch.on_lost(1, "cannot be reached", world.now);
  BOOST_TEST(world.next().empty());
  BOOST_TEST((world.fetch.next_deadline() == world.now + 500ms));
  world.now = world.now + 19s;
  BOOST_TEST((world.next() == std::vector<Ask>{{0}, {1}}));
  world.fetch.on_has(0, {1});
  BOOST_TEST((world.next() == std::vector<Ask>{{0, 0}}));
  world.right({0, 0});
  world.now = world.now + 19s;
  BOOST_TEST(world.why() == "");
  world.now = world.now + 1s;
  BOOST_TEST(world.why().find("nothing has come for 20 s: a ") == 0u, world.why());
  BOOST_TEST((world.fetch.failure(world.now)->code == ErrorCode::deadline_exceeded));
  BOOST_TEST(world.next().empty());
}

// Whatever comes back, in whatever order: no piece is asked for twice at once, no source for more
// than its share, each is there once, and it ends while one source is well.
BOOST_AUTO_TEST_CASE(any_sources) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    fakes::Random random(seed);
    const auto count = static_cast<uint32_t>(random.pick(60) + 1);
    World world(count, {"a", "b", "c"});
    std::vector<Ask> open;
    std::set<uint32_t> there;
    int steps = 0;
    while (!world.fetch.done()) {
      BOOST_REQUIRE_MESSAGE(world.why().empty(), seed << ": " << world.why());
      BOOST_REQUIRE_MESSAGE(++steps < 100000, seed);
      for (const Ask& ask : world.next()) open.push_back(ask);
      std::map<size_t, int> by_source;
      std::set<uint32_t> asked;
      for (const Ask& ask : open) {
        if (!ask.piece) continue;
        BOOST_REQUIRE(asked.insert(*ask.piece).second);
        BOOST_REQUIRE(!there.contains(*ask.piece));
        BOOST_REQUIRE(++by_source[ask.source] <= 4);
      }
      if (open.empty()) {
        world.now = std::max(world.now + 1ms, world.fetch.next_deadline());
        continue;
      }
      const auto which = random.pick(static_cast<int>(open.size()));
      const Ask ask = open[static_cast<size_t>(which)];
      open.erase(open.begin() + which);
      world.now = world.now + 1ms;
      const int fate = ask.source == 0 ? 9 : random.pick(10);  // a is well
      if (!ask.piece && fate == 0) {
        world.fetch.on_lost(ask.source, "went away", world.now);
      } else if (!ask.piece) {
        world.fetch.on_has(ask.source, ask.source == 0 ? kAll : std::vector<uint8_t>{0xaa, 0x55});
      } else if (fate == 0) {
        world.lost(ask);
      } else if (fate == 1) {
        world.wrong(ask);
      } else {
        world.right(ask);
        there.insert(*ask.piece);
      }
    }
    BOOST_TEST(there.size() == count);
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
