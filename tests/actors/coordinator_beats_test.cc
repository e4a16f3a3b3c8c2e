// Who answers for a coordinator: its actor, but while that waits for the store.
#include "actors/coordinator_beats.h"

#include <boost/test/unit_test.hpp>

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;
using Writing = CoordinatorBeats::Writing;

constexpr TimePoint kNow{1h};

struct Beats : CoordinatorBeats {
  /// Whether the actor is to be told.
  bool ask(TimePoint now) {
    return on_asked(transport::rpc::Reply<Ok>([this](const Result<Ok>& answer) {
                      BOOST_TEST(answer.ok());
                      ++num_answers;
                    }),
                    now);
  }
  int num_answers = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(its_actor_answers_in_its_turn) {
  Beats beats;
  BOOST_TEST(beats.ask(kNow));
  BOOST_TEST(!beats.ask(kNow));  // it has been told
  BOOST_TEST(beats.num_answers == 0);
  beats.answer_all();
  BOOST_TEST(beats.num_answers == 2);
  BOOST_TEST(beats.ask(kNow));
  beats.answer_all();
  BOOST_TEST(beats.num_answers == 3);
}

BOOST_AUTO_TEST_CASE(a_slow_store_is_no_hang_for_ten_seconds) {
  Beats beats;
  BOOST_TEST(beats.ask(kNow));
  {
    const Writing writing(&beats, kNow + 50ms);
    BOOST_TEST(beats.num_answers == 1);
    BOOST_TEST(!beats.ask(kNow + 1s));
    BOOST_TEST(!beats.ask(kNow + 10s));
    BOOST_TEST(beats.num_answers == 3);
    BOOST_TEST(beats.ask(kNow + 10050ms));
    BOOST_TEST(beats.num_answers == 3);
    beats.answer_all();
  }
  BOOST_TEST(beats.ask(kNow + 11s));
  BOOST_TEST(beats.num_answers == 4);
  beats.answer_all();
  const Writing nobody_asks(nullptr, kNow);
}

}  // namespace chainpump::actors
