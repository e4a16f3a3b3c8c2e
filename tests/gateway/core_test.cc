// The gateway's own rules, over an engine that does what the test says: what is refused, what comes
// out and in which order, and how requests end.
#include "gateway/core.h"

#include "tests/gateway/gateway_fixture.h"

namespace chainpump::gateway {

using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(tokens_come_out_once_in_order_as_text) {
  Gateway gateway;
  const auto generation = gateway.generate();
  BOOST_TEST(generation->take().empty());
  gateway.clock.advance(5ms);
  gateway.engine.token(0, 0);
  gateway.engine.token(0, 4);
  BOOST_TEST(gateway.wakes == 1);  // nobody has come for the first yet
  Update update = generation->take();
  BOOST_REQUIRE_EQUAL(update.deltas.size(), 1u);
  BOOST_TEST((update.deltas[0].request == generation->id()));
  BOOST_TEST(update.deltas[0].first_index == 0);
  BOOST_TEST((update.deltas[0].tokens == TokenIds{0, 4}));
  BOOST_TEST(update.deltas[0].text == "a");  // half a character is kept back
  BOOST_TEST(generation->take().empty());
  gateway.clock.advance(3ms);
  gateway.engine.token(0, 5, FinishReason::length);
  BOOST_TEST(gateway.wakes == 2);
  update = generation->take();
  BOOST_REQUIRE_EQUAL(update.deltas.size(), 1u);
  BOOST_TEST(update.deltas[0].first_index == 2);
  BOOST_TEST(update.deltas[0].text == "\xc3\xa9");
  BOOST_TEST((update.deltas[0].finish == FinishReason::length));
  BOOST_REQUIRE(update.end && update.end->ok());
  const Usage& usage = **update.end;
  BOOST_TEST(usage.num_prompt_tokens == 3);
  BOOST_REQUIRE_EQUAL(usage.choices.size(), 1u);
  BOOST_TEST(usage.choices[0].num_tokens == 3);
  BOOST_TEST((usage.choices[0].to_first_token == 5ms));
  BOOST_TEST((usage.choices[0].first_to_last == 3ms));
  BOOST_TEST(generation->take().empty());
  BOOST_TEST(gateway.core->idle());
}

BOOST_AUTO_TEST_CASE(a_stop_string_never_shows) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  request.sampling.stop = {"bc"};
  for (const bool comes : {false, true}) {
    const auto generation = gateway.generate(request);
    const size_t index = gateway.engine.size() - 1;
    gateway.engine.token(index, 2);
    BOOST_TEST(generation->take().deltas.at(0).text == "a");  // "b" may begin it
    gateway.engine.token(index, comes ? 3 : 0, comes ? FinishReason::stop : FinishReason::length,
                         comes ? 1 : -1);
    const Update update = generation->take();
    BOOST_TEST(update.deltas.at(0).text == (comes ? "" : "ba"));
    BOOST_TEST(update.deltas.at(0).tokens.size() == 1u);
  }
}

BOOST_AUTO_TEST_CASE(choices_are_sequences_of_one_seed) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  request.num_choices = 3;
  request.seed = 7;
  const auto generation = gateway.generate(request);
  BOOST_REQUIRE_EQUAL(gateway.engine.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    BOOST_TEST(gateway.engine.at(i).request.sequence_index == i);
    BOOST_TEST(gateway.engine.at(i).request.sampling.seed == 7u);
  }
  gateway.engine.token(2, 1, FinishReason::length);
  gateway.engine.token(0, 0, FinishReason::length);
  Update update = generation->take();
  BOOST_REQUIRE_EQUAL(update.deltas.size(), 2u);
  BOOST_TEST(update.deltas[0].choice == 0);
  BOOST_TEST(update.deltas[1].choice == 2);
  BOOST_TEST(!update.end);
  gateway.engine.token(1, 0, FinishReason::length);
  BOOST_TEST(generation->take().end->ok());
  request.seed.reset();
  const uint64_t drawn = gateway.generate(request)->seed();
  for (size_t i = 3; i < 6; ++i) BOOST_TEST(gateway.engine.at(i).request.sampling.seed == drawn);
}

BOOST_AUTO_TEST_CASE(whose_request_it_is_reaches_the_engine) {
  Gateway gateway({}, true, 4096);
  std::vector<std::shared_ptr<Generation>> held;
  const auto asked = [&](const std::string& tenant, int32_t priority) {
    GenerateRequest request = Gateway::request();
    request.tenant = tenant;
    request.priority = priority;
    held.push_back(gateway.generate(request));
    return gateway.engine.at(gateway.engine.size() - 1).request;
  };
  const auto nobody = asked("", 100);
  BOOST_TEST((nobody.tenant == graph::TenantId()));
  BOOST_TEST(nobody.cache_salt == 0u);
  BOOST_TEST(nobody.priority == 100);
  const auto one = asked("one", -100);
  const auto again = asked("one", 0);
  const auto other = asked("o.t-h_e@R2", 0);
  BOOST_TEST(one.priority == -100);
  BOOST_TEST((one.tenant == again.tenant && one.cache_salt == again.cache_salt));
  BOOST_TEST((one.tenant != other.tenant && one.cache_salt != other.cache_salt));
  BOOST_TEST((one.tenant != nobody.tenant && one.cache_salt != 0u));
  for (size_t i = 2; i < kTenantsMax; ++i) asked(fmt::format("t{}", i), 0);
  GenerateRequest more = Gateway::request();
  more.tenant = "more";
  const auto refused = gateway.try_generate(more);
  BOOST_TEST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
  BOOST_TEST(gateway.try_generate(Gateway::request()).ok());
  more.tenant = "one";
  BOOST_TEST(gateway.try_generate(more).ok());
}

BOOST_AUTO_TEST_CASE(log_probabilities_come_if_asked_for) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  for (const int32_t top : {-1, 0, 2}) {
    request.sampling.num_top_logprobs = top;
    const auto generation = gateway.generate(request);
    gateway.engine.token(gateway.engine.size() - 1, 0, FinishReason::length);
    const Update update = generation->take();
    const auto& logprobs = update.deltas.at(0).logprobs;
    BOOST_TEST(logprobs.size() == (top < 0 ? 0u : 1u));
    if (top >= 0) BOOST_TEST(logprobs[0].top.size() == static_cast<size_t>(top));
  }
}

BOOST_AUTO_TEST_CASE(what_can_be_wrong_is_refused_before_anything_runs) {
  Gateway gateway;
  const auto refused = [&](ErrorCode code, std::string_view words, auto&& change) {
    GenerateRequest request = Gateway::request();
    change(request);
    const auto generation = gateway.try_generate(request);
    BOOST_REQUIRE_MESSAGE(!generation.ok(), words);
    BOOST_TEST((generation.error().code == code), generation.error().message);
    BOOST_TEST(generation.error().message.find(words) != std::string::npos,
               generation.error().message);
  };
  constexpr auto kBad = ErrorCode::invalid_argument;
  refused(kBad, "no tokens", [](auto& r) { r.prompt = TokenIds{}; });
  refused(kBad, "token 7 ", [](auto& r) { r.prompt = TokenIds{0, 7}; });
  refused(kBad, "token -1 ", [](auto& r) { r.prompt = TokenIds{-1}; });
  refused(kBad, "20 tokens", [](auto& r) { r.prompt = TokenIds(20, 1); });
  refused(kBad, "UTF-8 at byte 1", [](auto& r) { r.prompt = RawText{"a\xff"}; });
  refused(kBad, "no messages", [](auto& r) { r.prompt = Chat{}; });
  refused(kBad, "4097 messages", [](auto& r) {
    r.prompt = Chat{std::vector<models::ChatMessage>(4097, {.role = "user", .content = "a"})};
  });
  refused(kBad, "content of message 1", [](auto& r) {
    r.prompt = Chat{{{.role = "user", .content = "a"}, {.role = "user", .content = "\xff"}}};
  });
  refused(ErrorCode::not_found, "no template",
          [](auto& r) { r.prompt = Chat{{{.role = "user", .content = "a"}}}; });
  refused(kBad, "temperature", [](auto& r) { r.sampling.temperature = -1; });
  refused(kBad, "from 1 to 16", [](auto& r) { r.num_choices = 0; });
  refused(kBad, "from 1 to 16", [](auto& r) { r.num_choices = 17; });
  refused(kBad, "deadline", [](auto& r) { r.deadline = 0s; });
  refused(kBad, "deadline", [](auto& r) { r.deadline = 25h; });
  refused(kBad, "priority", [](auto& r) { r.priority = 101; });
  refused(kBad, "priority", [](auto& r) { r.priority = -101; });
  refused(kBad, "tenant 'a b'", [](auto& r) { r.tenant = "a b"; });
  refused(kBad, "at most 64", [](auto& r) { r.tenant = std::string(65, 'a'); });
  BOOST_TEST(gateway.engine.size() == 0u);
  BOOST_TEST(gateway.core->status().num_refused == 18u);
  BOOST_TEST(gateway.core->idle());
}

BOOST_AUTO_TEST_CASE(a_full_service_says_when_to_come_again) {
  Gateway gateway({}, /*ready=*/true, /*max_queued=*/3);
  GenerateRequest three = Gateway::request();
  three.num_choices = 3;
  const auto running = gateway.generate(three);
  const auto refused = gateway.try_generate(three);
  BOOST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
  BOOST_REQUIRE_MESSAGE(retry_after(refused.error()), why(refused));
  BOOST_TEST((*retry_after(refused.error()) >= 100ms));
  BOOST_TEST((*retry_after(refused.error()) <= 1min));
  const auto small = gateway.generate();  // one place is left
  running->cancel();
  gateway.generate(three);
  BOOST_TEST(!retry_after(make_error(ErrorCode::internal, "x; retry after 3 s")));
  BOOST_TEST(!retry_after(make_error(ErrorCode::overloaded, "later")));
}

BOOST_AUTO_TEST_CASE(a_cancelled_request_ends_though_no_stage_answers) {
  for (const bool deaf : {false, true}) {
    Gateway gateway;
    gateway.engine.deaf = deaf;
    GenerateRequest request = Gateway::request();
    request.num_choices = 2;
    const auto generation = gateway.generate(request);
    gateway.engine.token(0, 0);
    generation->cancel();
    generation->cancel();
    BOOST_TEST(gateway.engine.at(0).cancelled);
    BOOST_TEST(gateway.engine.at(1).cancelled);
    gateway.clock.advance(999ms);
    gateway.core->tick();
    Update update = generation->take();
    BOOST_TEST(update.deltas.size() == 1u);  // what there was before
    BOOST_TEST(update.end.has_value() == !deaf);
    gateway.clock.advance(1ms);
    gateway.core->tick();
    if (deaf) update = generation->take();
    BOOST_TEST((code_of(update.end) == ErrorCode::cancelled));
    // What still holds a place in the engine is counted until the engine lets go of it.
    BOOST_TEST(gateway.core->status().num_sequences == (deaf ? 2 : 0));
    if (deaf) gateway.engine.token(0, 0);  // too late to matter
    BOOST_TEST(generation->take().empty());
    BOOST_TEST(gateway.core->status().num_cancelled == 1u);
  }
}

BOOST_AUTO_TEST_CASE(a_deadline_ends_a_request) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  request.deadline = 2s;
  const auto generation = gateway.generate(request);
  gateway.clock.advance(1999ms);
  gateway.core->tick();
  BOOST_TEST(generation->take().empty());
  gateway.clock.advance(1ms);
  gateway.core->tick();
  BOOST_TEST((code_of(generation->take().end) == ErrorCode::deadline_exceeded));
  BOOST_TEST(gateway.engine.at(0).cancelled);
  BOOST_TEST((gateway.engine.at(0).timeout > request.deadline));
}

BOOST_AUTO_TEST_CASE(an_error_of_one_choice_ends_them_all) {
  Gateway gateway;
  GenerateRequest request = Gateway::request();
  request.num_choices = 2;
  const auto generation = gateway.generate(request);
  gateway.engine.end(1, make_error(ErrorCode::internal, "stage 2 broke"));
  const Update update = generation->take();
  BOOST_TEST((code_of(update.end) == ErrorCode::internal));
  BOOST_TEST(update.end->error().message == "stage 2 broke");
  BOOST_TEST(gateway.engine.at(0).cancelled);
}

BOOST_AUTO_TEST_CASE(a_client_that_does_not_keep_up_loses_its_request_only) {
  Gateway gateway({.buffer_bytes_max = 1024});
  const auto slow = gateway.generate();
  const auto quick = gateway.generate();
  int taken = 0;
  for (int i = 0; i < 100 && !gateway.engine.at(0).cancelled; ++i) {
    gateway.engine.token(0, 0);
    gateway.engine.token(1, 0);
    taken += static_cast<int>(quick->take().deltas.at(0).tokens.size());
  }
  BOOST_TEST(gateway.engine.at(0).cancelled);
  BOOST_TEST(taken == 65);  // the 65th was the one too many, at 16 bytes each
  const Update update = slow->take();
  BOOST_TEST(update.deltas.at(0).tokens.size() == 64u);
  BOOST_TEST((code_of(update.end) == ErrorCode::overloaded));
  BOOST_TEST(!gateway.engine.at(1).cancelled);
}

BOOST_AUTO_TEST_CASE(phases_open_and_close_the_door) {
  Gateway gateway({}, /*ready=*/false);
  const auto refusal = [&] {
    const auto generation = gateway.try_generate(Gateway::request());
    BOOST_REQUIRE(!generation.ok());
    return generation.error();
  };
  BOOST_TEST((refusal().code == ErrorCode::overloaded));
  gateway.core->set_ready("all there");
  const auto running = gateway.generate();
  gateway.core->set_draining();
  gateway.core->set_ready("no way back");
  BOOST_TEST(refusal().message.find("about to end") != std::string::npos);
  gateway.engine.token(0, 0, FinishReason::length);
  BOOST_TEST(running->take().end->ok());  // what runs may end
  const auto events = gateway.core->events_after(1);
  BOOST_REQUIRE_EQUAL(events.size(), 2u);
  BOOST_TEST(events[0].number == 2u);
  BOOST_TEST((events[0].phase == Phase::ready));
  BOOST_TEST(events[0].message == "all there");
  BOOST_TEST((events[1].phase == Phase::draining));
}

BOOST_AUTO_TEST_CASE(a_failed_deployment_ends_everything_with_its_reason) {
  Gateway gateway;
  const auto generation = gateway.generate();
  const auto scoring = gateway.core->score({.prompt = {0}, .targets = {1}}, [] {});
  BOOST_REQUIRE(scoring.ok());
  gateway.core->set_failed(make_error(ErrorCode::disconnected, "stage 1 died"));
  gateway.core->set_failed(make_error(ErrorCode::internal, "second"));
  BOOST_TEST(generation->take().end->error().message == "stage 1 died");
  BOOST_TEST((*scoring)->take()->error().message == "stage 1 died");
  const auto late = gateway.try_generate(Gateway::request());
  BOOST_TEST(late.error().message == "stage 1 died");
  BOOST_TEST((gateway.core->status().phase == Phase::failed));
}

BOOST_AUTO_TEST_CASE(scores_come_whole) {
  Gateway gateway;
  int wakes = 0;
  const auto scoring = gateway.core->score({.prompt = {0, 1}, .targets = {2, 3}}, [&] { ++wakes; });
  BOOST_REQUIRE_MESSAGE(scoring.ok(), why(scoring));
  auto& sequence = gateway.engine.at(0);
  BOOST_TEST((sequence.request.prompt == TokenIds{0, 1, 2, 3}));
  BOOST_TEST(sequence.request.score.first_position == 1);
  sequence.callbacks.on_score({.id = {}, .position = 2, .logprob = -2, .argmax = 5});
  BOOST_TEST(!(*scoring)->take());
  sequence.callbacks.on_score({.id = {}, .position = 1, .logprob = -1, .argmax = 4});
  BOOST_TEST(wakes == 0);
  gateway.engine.end(0, Ok{});
  BOOST_TEST(wakes == 1);
  const auto answer = (*scoring)->take();
  BOOST_REQUIRE(answer && answer->ok());
  BOOST_TEST(((*answer)->logprobs == std::vector<float>{-1, -2}));
  BOOST_TEST(((*answer)->argmax == TokenIds{4, 5}));
  BOOST_TEST(!(*scoring)->take());

  for (const ScoreRequest& bad :
       {ScoreRequest{.prompt = {}, .targets = {1}}, ScoreRequest{.prompt = {1}, .targets = {}},
        ScoreRequest{.prompt = {1}, .targets = {7}},
        ScoreRequest{.prompt = {1}, .targets = TokenIds(20, 1)}})
    BOOST_TEST((gateway.core->score(bad, [] {}).error().code == ErrorCode::invalid_argument));
  const auto whole = gateway.core->score({.prompt = {1}, .targets = TokenIds(19, 1)}, [] {});
  BOOST_TEST(whole.ok(), why(whole));  // a context's worth
}

BOOST_AUTO_TEST_CASE(the_rate_is_that_of_ten_seconds) {
  Gateway gateway;
  const auto generation = gateway.generate();
  for (int i = 0; i < 50; ++i) gateway.engine.token(0, 0);
  BOOST_TEST(gateway.core->status().tokens_per_second == 0.0);  // the second is not over
  gateway.clock.advance(1s);
  BOOST_TEST(gateway.core->status().tokens_per_second == 5.0);
  BOOST_TEST(gateway.core->status().num_tokens == 50u);
  BOOST_TEST(gateway.core->status().num_tokens_held == 53);
  gateway.clock.advance(10s);
  BOOST_TEST(gateway.core->status().tokens_per_second == 0.0);
}

BOOST_AUTO_TEST_CASE(ready_is_who_takes_requests_and_whose_tokens_get_through) {
  Gateway gateway({}, false);
  BOOST_TEST(!gateway.core->readiness().ready);
  BOOST_TEST(gateway.core->readiness().why == "the stages load");
  gateway.core->set_ready("ready");
  BOOST_TEST(gateway.core->readiness().ready);
  gateway.engine.set_health({.ready = false, .why = "lane 0: stage 'x' died"});
  BOOST_TEST(gateway.core->readiness().why == "lane 0: stage 'x' died");
  gateway.engine.set_health({.ready = true});
  gateway.core->set_draining();
  BOOST_TEST(!gateway.core->readiness().ready);
  BOOST_TEST(gateway.core->readiness().why == "no new requests are taken");
  gateway.core->set_failed(make_error(ErrorCode::internal, "no stage is left"));
  BOOST_TEST(gateway.core->readiness().why == "no stage is left");
  BOOST_TEST(gateway.core->status().readiness.why == "no stage is left");
}

}  // namespace chainpump::gateway
