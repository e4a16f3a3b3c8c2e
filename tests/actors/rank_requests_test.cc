// What a rank makes of requests: of several sequences, of who asks, and of how they end.
#include <algorithm>

#include "tests/actors/ranks.h"

namespace chainpump::actors {
namespace {

/// One that keeps what each sequence came to, and in which order requests began.
struct Keeper {
  Ranks& ranks;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<TokenId>> tokens;
  std::map<std::pair<uint64_t, uint32_t>, Status> ends;
  std::vector<uint64_t> begun;
  explicit Keeper(Ranks& given) : ranks(given) {
    Answer<Ok> answer;
    ranks.stages[0]->attach({.client = 3,
                             .sink = [this](const rpc::LaneResults& results) -> Status {
                               for (const auto& token : results.tokens) take(token);
                               for (const auto& end : results.ends) {
                                 const std::pair key(end.request_id, end.sequence_index);
                                 BOOST_TEST(ends.emplace(key, end.how).second);
                               }
                               return ok_status();
                             },
                             .reply = answer.reply()});
    BOOST_REQUIRE(answer.ok());
  }
  void take(const rpc::TokenResult& token) {
    tokens[{token.request_id, token.sequence_index}].push_back(token.token);
    if (std::find(begun.begin(), begun.end(), token.request_id) == begun.end())
      begun.push_back(token.request_id);
  }
  static rpc::GenerateRequest request(uint64_t id) {
    rpc::GenerateRequest request;
    request.request_id = id;
    request.prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    request.sampling.max_new_tokens = 12;
    request.sampling.ignore_eos = true;
    request.sampling.temperature = 2;
    request.sampling.seed = 7;
    return request;
  }
  void submit(std::vector<rpc::GenerateRequest> requests) {
    ranks.stages[0]->submit(
        {.client = 3, .requests = std::move(requests), .reply = Answer<Ok>().reply()});
  }
  void wait(size_t num_ends) {
    ranks.tick_until([&] { return ends.size() >= num_ends; });
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(sequences_of_one_request_are_those_of_requests_of_one) {
  Ranks ranks(2);
  ranks.open();
  Keeper keeper(ranks);
  rpc::GenerateRequest three = Keeper::request(1);
  three.sequence_index = 5;
  three.num_sequences = 3;
  keeper.submit({three});
  keeper.wait(3);
  for (uint32_t i = 5; i < 8; ++i) {
    rpc::GenerateRequest one = Keeper::request(10 + i);
    one.sequence_index = i;
    keeper.submit({one});
  }
  keeper.wait(6);
  for (uint32_t i = 5; i < 8; ++i) {
    BOOST_TEST((keeper.ends.at({1, i}).ok() && keeper.ends.at({10 + i, i}).ok()));
    const std::vector<TokenId> together = keeper.tokens[{1, i}];
    BOOST_TEST(together.size() == 12u);
    BOOST_TEST((together == keeper.tokens[{10 + i, i}]));
  }
  BOOST_TEST((keeper.tokens[{1, 5}] != keeper.tokens[{1, 6}]));
}

BOOST_AUTO_TEST_CASE(every_sequence_of_a_request_ends_whatever_ends_it) {
  Ranks ranks(2);
  ranks.open();
  Keeper keeper(ranks);
  const auto all_end_with = [&](uint64_t id, uint32_t count, ErrorCode code) {
    for (uint32_t i = 0; i < count; ++i) {
      BOOST_TEST_REQUIRE(keeper.ends.contains({id, i}));
      BOOST_TEST((!keeper.ends.at({id, i}).ok() && keeper.ends.at({id, i}).error().code == code));
    }
    BOOST_TEST(!keeper.ends.contains({id, count}));
  };
  std::vector<rpc::GenerateRequest> asked;
  for (uint64_t id = 1; id <= 4; ++id) {
    asked.push_back(Keeper::request(id));
    asked.back().num_sequences = 2;
    asked.back().sampling.max_new_tokens = 50;
  }
  asked[1].prompt = {-1};
  asked[2].num_sequences = 0;
  asked[3].num_sequences = 65;
  keeper.submit(asked);
  all_end_with(2, 2, ErrorCode::invalid_argument);
  all_end_with(3, 1, ErrorCode::invalid_argument);
  all_end_with(4, 64, ErrorCode::invalid_argument);
  ranks.tick_until([&] { return keeper.tokens[{1, 1}].size() >= 2; });
  CancelCommand command;
  command.client = 3;
  command.request_ids = {1};
  BOOST_TEST(ranks.tell(0, &RankStage::cancel, std::move(command)).ok());
  all_end_with(1, 2, ErrorCode::cancelled);
  rpc::GenerateRequest late = Keeper::request(5);
  late.num_sequences = 2;
  late.timeout_ns = 1;
  keeper.submit({late});
  ranks.tick_until([&] { return keeper.ends.contains({5, 1}); });
  all_end_with(5, 2, ErrorCode::deadline_exceeded);
}

BOOST_AUTO_TEST_CASE(priority_goes_first_and_then_who_was_served_least) {
  Ranks ranks(1);
  ranks.plan.max_sequences = 1;
  ranks.open();
  Keeper keeper(ranks);
  std::vector<rpc::GenerateRequest> asked;
  for (uint64_t id = 1; id <= 6; ++id) asked.push_back(Keeper::request(id));
  asked[4].tenant = 2;
  asked[5].priority = 1;
  keeper.submit(asked);
  keeper.wait(6);
  // The one of higher priority, then the tenants in turns, though one has asked far more.
  BOOST_TEST_REQUIRE(keeper.begun.size() == 6u);
  BOOST_TEST(keeper.begun[0] == 6u);
  BOOST_TEST(
      (std::find(keeper.begun.begin(), keeper.begun.begin() + 3, 5u) != keeper.begun.begin() + 3));
  const std::vector<uint64_t> rest(keeper.begun.begin() + 3, keeper.begun.end());
  BOOST_TEST((std::is_sorted(rest.begin(), rest.end()) && rest.back() == 4u));
}

}  // namespace chainpump::actors
