// A rank copies what it holds to another one, which takes its place, as a coordinator would have it
// done: tokens are those of a calm run, and nothing is computed again.
#include <boost/test/unit_test.hpp>

#include "tests/actors/rank_repairs.h"

namespace chainpump::actors {
namespace {

struct Move : Repair {
  using Repair::Repair;

  std::unique_ptr<RankStage> make() const {
    return std::make_unique<RankStage>(
        hub, std::make_shared<transport::Waiter>(transport::WaiterOptions{}),
        std::make_shared<StepTrace>(), std::make_shared<Beat>(), steady_clock());
  }
  rpc::KvCopy copy_of(size_t rank) const {
    const StageIndex stage = place_of(plan, RankId(static_cast<uint32_t>(rank))).stage;
    const graph::StagePlan& own = plan.stages[static_cast<size_t>(stage.value)];
    return {.epoch = epoch,
            .incarnation = ++num_copies,
            .secret = 9,
            .layer_begin = own.layer_begin,
            .layer_end = own.layer_end,
            .address = {}};
  }
  /// A newcomer, among the stages as the last, to which the rank has copied what it can.
  void begin(size_t rank) {
    stages.push_back(make());
    const auto last = static_cast<int32_t>(stages.size()) - 1;
    BOOST_REQUIRE(load(last, static_cast<uint32_t>(rank)).ok());
    const rpc::KvCopy copy = copy_of(rank);
    BOOST_REQUIRE(tell(last, &RankStage::take_in, TakeInCommand{.copy = copy, .reply = {}}).ok());
    const Answer<Ok> copied = tell(
        static_cast<int32_t>(rank), &RankStage::copy,
        CopyCommand{
            .copy = copy, .progress = [this](int64_t, int64_t) { ++num_reports; }, .reply = {}});
    tick_until([&] { return copied.come(); });
    BOOST_REQUIRE(copied.ok());
  }
  Answer<Ok> finish(size_t rank) {
    return tell(static_cast<int32_t>(rank), &RankStage::finish_copy, FinishCopyCommand{});
  }
  /// All lanes that the rank serves are fenced.
  void fence_all(size_t rank) {
    ++epoch;
    held.clear();
    for (const graph::LaneId lane : lanes_of(plan, RankId(static_cast<uint32_t>(rank))))
      for (const graph::StagePlan& stage : plan.stages) {
        const size_t each = rank_at(plan, lane, stage.index).value;
        held[lane.value][each] = fence(each, lane.value, epoch);
      }
    tick_until([&] {
      for (const auto& [lane, answers] : held)
        for (const auto& [each, answer] : answers)
          if (!answer.come()) return false;
      return true;
    });
  }
  /// The newcomer takes the place, and the rank's lanes go on.
  void change_hands(size_t rank) {
    stages[rank] = std::move(stages.back());
    stages.pop_back();
    std::vector<Answer<Ok>> opened;
    for (auto& [lane, answers] : held) {
      answers[rank] = fence(rank, lane, epoch);
      BOOST_REQUIRE(answers[rank].ok());
      for (const auto& [each, answer] : answers)
        opened.push_back(connect_again(each, {graph::LaneId(lane)}));
    }
    tick_until([&] {
      return std::all_of(opened.begin(), opened.end(), [](const auto& a) { return a.ok(); });
    });
    for (auto& [lane, answers] : held) {
      std::vector<rpc::StageHoldings> holdings;
      for (const auto& [each, answer] : answers) holdings.push_back(***answer.held);
      BOOST_REQUIRE(resume(lane, epoch, std::move(holdings)).ok());
    }
  }
  uint64_t num_again() {
    uint64_t again = 0;
    for (const auto& stage : stages) {
      Answer<rpc::RankStats> counted;
      stage->stats({.reply = counted.reply()});
      again += (*counted.held)->value().stage.tokens_held +
               (*counted.held)->value().stage.tokens_rebuilt;
    }
    return again;
  }

  mutable uint32_t num_copies = 0;
  int num_reports = 0;
  std::map<uint8_t, std::map<size_t, Answer<rpc::StageHoldings>>> held;  // by lane and rank
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_rank_moves_and_nothing_is_computed_again) {
  const std::vector<TokenId> expected = calm(45);
  for (const size_t rank : {1u, 2u})
    for (int before = 0; before < 150; before += 21) {
      Move chain(std::vector<size_t>(3, 1));
      chain.open();
      const Answer<Ok> one = chain.submit(0, 1, 45);
      const Answer<Ok> two = chain.submit(0, 2, 45);
      chain.tick_all(before);
      chain.begin(rank);
      chain.fence_all(rank);
      const Answer<Ok> finished = chain.finish(rank);
      chain.tick_until([&] { return finished.come(); });
      BOOST_REQUIRE(finished.ok());
      chain.change_hands(rank);
      chain.tick_until([&] { return one.come() && two.come(); });
      BOOST_TEST(chain.tokens_of[1] == expected);
      BOOST_TEST(chain.tokens_of[2] == expected);
      BOOST_TEST(chain.num_again() == 0u);
    }
}

BOOST_AUTO_TEST_CASE(a_rank_of_two_lanes_moves_with_both) {
  const std::vector<TokenId> expected = calm(45);
  Move chain({2, 1, 2});
  chain.open();
  const Answer<Ok> one = chain.submit_on(0, 1, 45);
  const Answer<Ok> two = chain.submit_on(1, 2, 45);
  chain.tick_all(60);
  chain.begin(1);
  chain.tick_all(30);
  chain.fence_all(1);
  const Answer<Ok> finished = chain.finish(1);
  chain.tick_until([&] { return finished.come(); });
  BOOST_REQUIRE(finished.ok());
  chain.change_hands(1);
  chain.tick_until([&] { return one.come() && two.come(); });
  BOOST_TEST(chain.tokens_of[1] == expected);
  BOOST_TEST(chain.tokens_of[2] == expected);
  BOOST_TEST(chain.num_again() == 0u);
  BOOST_TEST(chain.num_reports > 0);
}

// Of a rank with more layers than the others: as if another plan had cut it in two, of which one
// gets its layers in two parts. What either holds then is what the rank held.
BOOST_AUTO_TEST_CASE(a_rank_copies_to_two_and_one_takes_in_two_parts) {
  Move chain(std::vector<size_t>(3, 1));
  chain.open();
  const Answer<Ok> one = chain.submit(0, 1, 45);
  chain.tick_all(12);
  const graph::StagePlan own = chain.plan.stages[2];
  BOOST_REQUIRE(own.layer_end - own.layer_begin >= 2);
  const int32_t middle = own.layer_begin + 1;
  for (int i = 0; i < 2; ++i) {
    chain.stages.push_back(chain.make());
    BOOST_REQUIRE(chain.load(3 + i, 2).ok());
  }
  rpc::KvCopy copy = chain.copy_of(2);
  struct Part {
    int32_t to, begin, end;
    uint32_t parts;
  };
  std::vector<Answer<Ok>> copied;
  for (const Part& part :
       {Part{3, own.layer_begin, own.layer_end, 1}, Part{4, own.layer_begin, middle, 2},
        Part{4, middle, own.layer_end, 2}}) {
    copy.layer_begin = part.begin;
    copy.layer_end = part.end;
    copy.parts = part.parts;
    BOOST_REQUIRE(
        chain.tell(part.to, &RankStage::take_in, TakeInCommand{.copy = copy, .reply = {}}).ok());
    copied.push_back(
        chain.tell(2, &RankStage::copy, CopyCommand{.copy = copy, .progress = {}, .reply = {}}));
    ++copy.part;
  }
  chain.tick_until([&] {
    return std::all_of(copied.begin(), copied.end(), [](const auto& each) { return each.ok(); });
  });
  chain.fence_all(2);
  const Answer<Ok> finished = chain.finish(2);
  chain.tick_until([&] { return finished.come(); });
  BOOST_REQUIRE(finished.ok());
  const rpc::StageHoldings was = ***chain.held[0][2].held;
  BOOST_REQUIRE(!was.sequences.empty());
  const auto check = [&](const Answer<rpc::StageHoldings>& has) {
    BOOST_REQUIRE(has.ok());
    BOOST_TEST((***has.held).sequences == was.sequences);
    BOOST_TEST((***has.held).held_positions == was.held_positions);
  };
  check(chain.fence(3, 0, chain.epoch));
  chain.stages[3] = std::move(chain.stages[4]);
  chain.stages.pop_back();
  chain.change_hands(2);
  check(chain.held[0][2]);
  chain.tick_until([&] { return one.come(); });
  BOOST_TEST(chain.tokens_of[1] == calm(45));
  BOOST_TEST(chain.num_again() == 0u);
}

BOOST_AUTO_TEST_CASE(a_copy_that_breaks_off_disturbs_nobody) {
  const std::vector<TokenId> expected = calm(45);
  Move chain(std::vector<size_t>(3, 1));
  chain.open();
  const Answer<Ok> one = chain.submit(0, 1, 45);
  chain.tick_all(60);
  chain.begin(1);
  chain.stages.pop_back();  // the newcomer
  chain.tick_all(20);
  chain.fence_all(1);
  BOOST_TEST((chain.finish(1).error().code == ErrorCode::invalid_argument));
  for (const size_t rank : {0u, 1u, 2u})
    BOOST_TEST(chain.connect_again(rank, {graph::LaneId(0)}).held);
  chain.tick_all(20);
  std::vector<rpc::StageHoldings> holdings;
  for (const auto& [each, answer] : chain.held[0]) holdings.push_back(***answer.held);
  BOOST_REQUIRE(chain.resume(0, chain.epoch, std::move(holdings)).ok());
  chain.tick_until([&] { return one.come(); });
  BOOST_TEST(chain.tokens_of[1] == expected);

  // The rank's own end leaves the newcomer with nothing.
  const Answer<Ok> two = chain.submit(0, 2, 45);
  chain.tick_all(60);
  chain.begin(1);
  chain.lose(1);
  chain.tick_all(20);
  const Answer<rpc::StageHoldings> nothing = chain.fence(3, 0, 50);
  BOOST_REQUIRE(nothing.ok());
  BOOST_TEST((*nothing.held)->value().sequences.empty());
}

BOOST_AUTO_TEST_CASE(what_makes_no_sense_is_refused) {
  Move chain(std::vector<size_t>(3, 1));
  const auto refused = [&](const auto& answer) {
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  const auto take_in = [&](int32_t rank, const rpc::KvCopy& copy) {
    return chain.tell(rank, &RankStage::take_in, TakeInCommand{.copy = copy, .reply = {}});
  };
  BOOST_TEST(refused(take_in(1, chain.copy_of(1))));  // it has not loaded
  chain.open();
  BOOST_TEST(refused(take_in(1, chain.copy_of(1))));  // it is at work
  BOOST_TEST(refused(chain.finish(1)));
  chain.begin(1);
  BOOST_TEST(refused(chain.finish(1)));  // its lane is at work
  rpc::KvCopy copy = chain.copy_of(1);
  ++copy.layer_end;
  BOOST_TEST(refused(take_in(3, copy)));
  BOOST_TEST(refused(
      chain.tell(1, &RankStage::copy, CopyCommand{.copy = copy, .progress = {}, .reply = {}})));
  copy.layer_end = copy.layer_begin - 1;
  BOOST_TEST(refused(take_in(3, copy)));
  copy = chain.copy_of(1);
  copy.lanes = {0, 1};
  BOOST_TEST(refused(take_in(3, copy)));
  copy.lanes = {0};
  copy.parts = 0;
  BOOST_TEST(refused(take_in(3, copy)));
  copy.parts = 1;
  copy.part = 1 << 16;
  BOOST_TEST(refused(take_in(3, copy)));
}

}  // namespace chainpump::actors
