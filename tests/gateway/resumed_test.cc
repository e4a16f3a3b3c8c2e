// A request that goes on where another gateway ended.
#include "tests/gateway/gateway_fixture.h"

namespace chainpump::gateway {

BOOST_AUTO_TEST_CASE(a_request_goes_on_from_what_its_client_has) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  request.num_choices = 3;
  request.sampling.stop = {"bc"};
  request.seed = 7;
  request.so_far = {{.tokens = {0, 1}}, {.tokens = {4}, .finish = FinishReason::length}, {}};
  const auto generation = gateway.generate(request);
  BOOST_REQUIRE_EQUAL(gateway.engine.size(), 2u);  // the one that has ended is not asked for
  for (const size_t i : {0u, 1u}) {
    const actors::SequenceRequest& asked = gateway.engine.at(i).request;
    BOOST_TEST(asked.num_sequences == 1);
    BOOST_TEST(asked.sampling.seed == 7u);
    BOOST_TEST(asked.sequence_index == (i == 0 ? 0u : 2u));
    BOOST_TEST((asked.generated == (i == 0 ? TokenIds{0, 1} : TokenIds{})));
  }
  // The text "ab" of which the client has "a": "b" may begin the stop string.
  gateway.engine.token(0, 0, FinishReason::length);
  gateway.engine.token(1, 3, FinishReason::length);
  const Update update = generation->take();
  BOOST_REQUIRE_EQUAL(update.deltas.size(), 2u);
  BOOST_TEST(update.deltas[0].first_index == 2);
  BOOST_TEST(update.deltas[0].text == "ba");
  BOOST_TEST(update.deltas[1].choice == 2);
  BOOST_TEST(update.deltas[1].first_index == 0);
  BOOST_TEST(update.deltas[1].text == "c");
  BOOST_REQUIRE(update.end && update.end->ok());
  const std::vector<ChoiceUsage>& choices = (*update.end)->choices;
  BOOST_TEST(choices.at(0).num_tokens == 3);
  BOOST_TEST(choices.at(1).num_tokens == 1);
  BOOST_TEST((choices.at(1).finish == FinishReason::length));
  BOOST_TEST(gateway.core->idle());

  // All have ended: what is missing is the end.
  for (ChoiceSoFar& choice : request.so_far) choice.finish = FinishReason::stop;
  gateway.wakes = 0;
  const auto over = gateway.generate(request);
  BOOST_TEST(gateway.engine.size() == 2u);
  BOOST_TEST(gateway.wakes == 1);
  BOOST_TEST(over->take().end->ok());
  BOOST_TEST(gateway.core->idle());

  // A cancel reaches every sequence of it.
  request.so_far = {{.tokens = {0}}, {.tokens = {0}}, {.tokens = {0}}};
  gateway.generate(request)->cancel();
  for (const size_t i : {2u, 3u, 4u}) BOOST_TEST(gateway.engine.at(i).cancelled);
  BOOST_TEST(gateway.core->idle());

  request.so_far.pop_back();
  BOOST_TEST((gateway.try_generate(request).error().code == ErrorCode::invalid_argument));
  request.so_far.push_back({});
  request.seed.reset();
  BOOST_TEST((gateway.try_generate(request).error().code == ErrorCode::invalid_argument));
}

}  // namespace chainpump::gateway
