// The public interface from end to end over a Unix socket, with an engine that does what the test
// says: everything arrives as it was sent, and every way to leave frees what was held.
#include <fcntl.h>

#include "tests/fakes/no_descriptors.h"
#include "tests/fakes/no_threads.h"
#include "tests/gateway/rpc/fixture.h"

namespace chainpump::gateway::rpc {

using namespace std::chrono_literals;
using graph::FinishReason;

BOOST_AUTO_TEST_CASE(a_client_learns_what_is_served) {
  TestServer server;
  const auto client = server.connect();
  const DeploymentInfo& info = client->deployment();
  const auto served = server.core().deployment();
  const DeploymentInfo& there = *served;
  BOOST_TEST(info.graph_name == there.graph_name);
  BOOST_TEST(info.graph_text == there.graph_text);
  BOOST_TEST(info.build == there.build);
  BOOST_TEST(info.isa == "avx2");
  BOOST_TEST(info.vocabulary_size == 7);
  BOOST_TEST(!info.has_chat_template);
  BOOST_TEST(info.plan.model_path == "/models/test.gguf");
  BOOST_TEST(info.plan.context_tokens == 1'000'000);
  BOOST_TEST((info.plan.kv.type == DType::bf16));
  BOOST_REQUIRE_EQUAL(info.plan.stages.size(), 2u);
  BOOST_TEST(info.plan.stages[1].num_threads == 3);
  BOOST_TEST((info.plan.edges.at(0).spin == graph::SpinPolicy::never));
  BOOST_TEST(client->wait_ready(kPatience).ok());
  const auto status = client->status(kPatience);
  BOOST_REQUIRE_MESSAGE(status.ok(), why(status));
  BOOST_TEST((status->phase == Phase::ready));
  BOOST_TEST(status->pid == ::getpid());
}

BOOST_AUTO_TEST_CASE(a_trace_arrives) {
  TestServer server;
  const auto client = server.connect();
  const Result<StepEvents> part = client->trace(RankId(0), 41, 5s);
  BOOST_TEST_REQUIRE(part.ok(), why(part));
  BOOST_TEST((part->events == server.engine.trace(RankId(0), 41, 5s)->events));
  BOOST_TEST(part->next == 42u);
  BOOST_TEST(part->lost == 2u);
  BOOST_TEST((part->now.since_epoch == 9ns));
  const Result<StepEvents> none = client->trace(RankId(1), 0, 5s);
  BOOST_TEST_REQUIRE(!none.ok());
  BOOST_TEST((none.error().code == ErrorCode::invalid_argument));
}

BOOST_AUTO_TEST_CASE(a_request_arrives_whole_and_its_results_do) {
  TestServer server;
  const auto client = server.connect();
  GenerateRequest sent = request();
  graph::SamplingParams& s = sent.sampling;
  s = {.temperature = 0.5f,
       .top_p = 0.9f,
       .min_p = 0.1f,
       .top_k = 5,
       .repetition_penalty = 1.1f,
       .presence_penalty = 0.2f,
       .frequency_penalty = 0.3f,
       .logit_bias = {{3, -1.5f}},
       .seed = 0,
       .max_new_tokens = 9,
       .ignore_eos = true,
       .stop = {std::string("x\0y", 3)},
       .stop_token_ids = {4},
       .num_top_logprobs = 2};
  sent.seed = UINT64_MAX;
  sent.num_choices = 2;
  sent.deadline = 7s;
  sent.priority = -3;
  sent.tenant = "who";
  auto generating = client->generate(sent);
  BOOST_REQUIRE_MESSAGE(generating.ok(), why(generating));
  BOOST_TEST((*generating)->seed() == UINT64_MAX);
  BOOST_REQUIRE_EQUAL(server.engine.size(), 2u);
  auto& sequence = server.engine.at(1);
  s.seed = UINT64_MAX;
  BOOST_TEST((sequence.request.sampling == s));
  BOOST_TEST((sequence.request.prompt == TokenIds{0, 1, 2}));
  BOOST_TEST(sequence.request.sequence_index == 1u);
  BOOST_TEST((sequence.timeout > 7s));
  BOOST_TEST(sequence.request.priority == -3);
  BOOST_TEST((sequence.request.tenant == Tenants().find("who")->id));
  BOOST_TEST(sequence.request.cache_salt == Tenants().find("who")->cache_salt);

  server.engine.token(0, 0);
  server.engine.token(1, 3, FinishReason::stop);
  server.engine.token(0, 1, FinishReason::length);
  Collected got;
  got.collect(**generating);
  BOOST_REQUIRE_MESSAGE(got.end->ok(), why(*got.end));
  const Usage& usage = **got.end;
  BOOST_TEST(usage.num_prompt_tokens == 3);
  BOOST_REQUIRE_EQUAL(usage.choices.size(), 2u);
  BOOST_TEST(usage.choices[0].num_tokens == 2);
  BOOST_TEST((usage.choices[1].finish == FinishReason::stop));
  int32_t next[2] = {0, 0};
  std::string text[2];
  for (const Delta& delta : got.deltas) {
    BOOST_TEST(delta.request.value != 0u);
    BOOST_TEST(delta.first_index == next[delta.choice]);
    next[delta.choice] += static_cast<int32_t>(delta.tokens.size());
    text[delta.choice] += delta.text;
    BOOST_REQUIRE_EQUAL(delta.logprobs.size(), delta.tokens.size());
    BOOST_TEST((delta.logprobs[0] ==
                TokenLogprobs{-0.5f, {{delta.tokens[0], -0.5f}, {delta.tokens[0], -0.5f}}}));
  }
  BOOST_TEST(text[0] == "ab");
  BOOST_TEST(text[1] == "c");
  BOOST_TEST((*generating)->next(1ms).empty());
}

BOOST_AUTO_TEST_CASE(errors_keep_their_code_and_their_words) {
  TestServer server;
  const auto client = server.connect();
  GenerateRequest bad = request();
  bad.prompt = TokenIds{0, 7};
  const auto refused = client->generate(bad);
  BOOST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(refused.error().message == "prompt token 7 is outside the vocabulary of 7 tokens");
  bad.prompt = Chat{{{.role = "user", .content = "a"}}};
  BOOST_TEST((client->generate(bad).error().code == ErrorCode::not_found));
  BOOST_TEST((client->tokenize(bad.prompt).error().code == ErrorCode::not_found));
  BOOST_TEST((client->tokenize(RawText{"a"}).error().code == ErrorCode::unimplemented));
  bad.prompt = RawText{std::string(100'000, '\xff')};  // too large to be quick
  BOOST_TEST((client->generate(bad).error().code == ErrorCode::invalid_argument));
  BOOST_TEST((client->tokenize(bad.prompt).error().code == ErrorCode::invalid_argument));
  BOOST_TEST((*client->tokenize(TokenIds(100'000, 1)) == TokenIds(100'000, 1)));
  BOOST_TEST((client->score({.prompt = {0}, .targets = {1}, .full_path = "/x"}).error().code ==
              ErrorCode::unimplemented));
  auto generating = client->generate(request());
  BOOST_REQUIRE(generating.ok());
  server.engine.end(0, make_error(ErrorCode::disconnected, "stage 'a' died:\nof [grief] "));
  Collected got;
  got.collect(**generating);
  BOOST_TEST((got.end->error().code == ErrorCode::disconnected));
  BOOST_TEST(got.end->error().message == "stage 'a' died:\nof [grief] ");
}

BOOST_AUTO_TEST_CASE(every_way_to_leave_cancels) {
  for (const std::string way : {"cancel", "drop", "disconnect"}) {
    BOOST_TEST_CONTEXT(way) {
      TestServer server;
      auto client = server.connect();
      auto generating = client->generate(request());
      BOOST_REQUIRE(generating.ok());
      auto scored = client->score({.prompt = {0}, .targets = {1}});
      BOOST_REQUIRE(scored.ok());
      BOOST_REQUIRE(wait_for([&] { return server.core().status().num_requests == 2; }));
      server.engine.token(0, 0);
      if (way == "cancel") {
        (*generating)->cancel();
        Collected got;
        got.collect(**generating);
        BOOST_TEST((got.end->error().code == ErrorCode::cancelled));
        scored->reset();
      } else if (way == "drop") {
        generating->reset();
        scored->reset();
      } else {
        generating->reset();
        scored->reset();
        client.reset();
      }
      BOOST_TEST(wait_for([&] { return server.core().idle(); }));
      BOOST_TEST(server.engine.at(0).cancelled);
      BOOST_TEST(server.engine.at(1).cancelled);
      BOOST_TEST(server.core().status().num_cancelled == 2u);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_client_is_told_when_the_service_goes) {
  auto server = std::make_unique<TestServer>();
  const auto client = server->connect();
  auto generating = client->generate(request());
  auto scored = client->score({.prompt = {0}, .targets = {1}});
  BOOST_REQUIRE(generating.ok());
  BOOST_REQUIRE(scored.ok());
  server.reset();
  Collected got;
  got.collect(**generating);
  BOOST_TEST(!got.end->ok());
  BOOST_TEST(!(*scored)->wait(kPatience).ok());
  BOOST_TEST(wait_for([&] { return !client->wait_ready(0s).ok(); }));
  for (const Status& status :
       {client->wait_ready(kPatience), Status(client->generate(request()).error())}) {
    BOOST_REQUIRE(!status.ok());
    BOOST_TEST((status.error().code == ErrorCode::disconnected));
    BOOST_TEST(status.error().message == "the service has gone");
  }
}

BOOST_AUTO_TEST_CASE(a_deaf_engine_does_not_keep_a_client) {
  TestServer server;
  const auto client = server.connect();
  server.engine.deaf = true;
  auto generating = client->generate(request());
  BOOST_REQUIRE(generating.ok());
  (*generating)->cancel();
  const TimePoint began = steady_clock().now();
  Collected got;
  got.collect(**generating);
  BOOST_TEST((got.end->error().code == ErrorCode::cancelled));
  BOOST_TEST(to_ms(steady_clock().now() - began) < 5000.0);
}

BOOST_AUTO_TEST_CASE(a_slow_client_slows_only_itself) {
  TestServer server;
  const auto slow = server.connect();
  const auto quick = server.connect();
  auto slow_one = slow->generate(request());
  auto quick_one = quick->generate(request());
  BOOST_REQUIRE(slow_one.ok());
  BOOST_REQUIRE(quick_one.ok());
  TokenIds quick_tokens;
  int num_made = 0;
  const TimePoint until = steady_clock().now() + kPatience;
  // Nobody takes the slow one's: it is fed until its buffers are full, then it ends, and only it.
  while (!server.engine.at(0).cancelled && steady_clock().now() < until) {
    for (int i = 0; i < 500; ++i, ++num_made)
      for (const size_t index : {0, 1})
        if (!server.engine.at(index).ended) server.engine.token(index, 0);
    while (quick_tokens.size() < static_cast<size_t>(num_made) && steady_clock().now() < until)
      for (const Delta& delta : (*quick_one)->next(1s).deltas)
        quick_tokens.insert(quick_tokens.end(), delta.tokens.begin(), delta.tokens.end());
  }
  BOOST_TEST(server.engine.at(0).cancelled);
  BOOST_TEST(!server.engine.at(1).cancelled);
  BOOST_TEST(quick_tokens.size() == static_cast<size_t>(num_made));
  BOOST_TEST_MESSAGE("ended after " << num_made << " tokens");
  // 256 KiB at 16 bytes each, and what client and window hold
  BOOST_TEST(num_made > 16'000);
  BOOST_TEST(num_made < 200'000);
  Collected got;
  got.collect(**slow_one);
  BOOST_TEST((got.end->error().code == ErrorCode::overloaded), got.end->error().message);
  int32_t next = 0;
  for (const Delta& delta : got.deltas) {
    BOOST_TEST(delta.first_index == next);
    next += static_cast<int32_t>(delta.tokens.size());
  }
}

BOOST_AUTO_TEST_CASE(scores_come_back) {
  TestServer server;
  const auto client = server.connect();
  auto scored = client->score({.prompt = {0, 1}, .targets = {2, 3}});
  BOOST_REQUIRE(scored.ok());
  BOOST_REQUIRE(wait_for([&] { return server.engine.size() == 1; }));
  const auto late = (*scored)->wait(1ms);
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
  for (const int32_t position : {1, 2})
    server.engine.at(0).callbacks.on_score({.id = {},
                                            .position = position,
                                            .logprob = -1.0f * static_cast<float>(position),
                                            .argmax = position + 3});
  server.engine.end(0, Ok{});
  const auto scores = (*scored)->wait(kPatience);
  BOOST_REQUIRE_MESSAGE(scores.ok(), why(scores));
  BOOST_TEST((scores->logprobs == std::vector<float>{-1, -2}));
  BOOST_TEST((scores->argmax == TokenIds{4, 5}));
}

BOOST_AUTO_TEST_CASE(events_are_watched) {
  TestServer server;
  const auto client = server.connect();
  std::mutex mutex;
  std::vector<Event> seen;
  client->watch(1, [&](std::vector<Event> events) {
    const std::lock_guard lock(mutex);
    seen.insert(seen.end(), events.begin(), events.end());
  });
  const auto num_seen = [&] {
    const std::lock_guard lock(mutex);
    return seen.size();
  };
  BOOST_REQUIRE(wait_for([&] { return num_seen() == 1; }));
  server.core().set_draining();
  BOOST_REQUIRE(wait_for([&] { return num_seen() == 2; }));
  BOOST_TEST(seen[0].number == 2u);
  BOOST_TEST((seen[0].phase == Phase::ready));
  BOOST_TEST((seen[1].phase == Phase::draining));
  const auto refused = client->generate(request());
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
}

BOOST_AUTO_TEST_CASE(limits_of_one_connection) {
  TestServer server({.uid = ::geteuid(), .connections_max = 2, .requests_max = 2});
  const auto client = server.connect();
  auto first = client->generate(request());
  auto second = client->generate(request());
  BOOST_REQUIRE(second.ok());
  const auto third = client->generate(request());
  BOOST_REQUIRE(!third.ok());
  BOOST_TEST((third.error().code == ErrorCode::overloaded), third.error().message);
  BOOST_TEST(retry_after(third.error()).has_value());
  first->reset();
  BOOST_TEST(wait_for([&] { return client->generate(request()).ok(); }));
  const auto other = server.connect();
  auto others = other->generate(request());
  BOOST_TEST(others.ok(), why(others));  // its own count
  const auto too_many = Client::connect(server.path(), kPatience);
  BOOST_REQUIRE(!too_many.ok());
  BOOST_TEST((too_many.error().code == ErrorCode::disconnected), too_many.error().message);
}

BOOST_AUTO_TEST_CASE(generations_that_are_never_dropped_have_a_limit) {
  TestServer server({.uid = ::geteuid(), .generations_max = 3});
  const auto client = server.connect();
  std::vector<std::unique_ptr<Generating>> kept;
  for (size_t i = 0; i < 3; ++i) {
    auto generating = client->generate(request());
    BOOST_REQUIRE_MESSAGE(generating.ok(), why(generating));
    server.engine.token(i, 0, FinishReason::length);
    Collected().collect(**generating);
    kept.push_back(std::move(*generating));
  }
  const auto refused = client->generate(request());
  BOOST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::overloaded), refused.error().message);
  kept.pop_back();
  BOOST_TEST(wait_for([&] { return client->generate(request()).ok(); }));
}

BOOST_AUTO_TEST_CASE(strangers_do_not_enter) {
  if (::geteuid() == 0) return;  // root enters everywhere
  TestServer server({.uid = ::geteuid() + 1});
  const auto client = Client::connect(server.path(), kPatience);
  BOOST_REQUIRE(!client.ok());
  BOOST_TEST((client.error().code == ErrorCode::invalid_argument), client.error().message);
}

BOOST_AUTO_TEST_CASE(nobody_there) {
  const TemporaryFolder folder;
  const auto missing = Client::connect((folder.path() / "socket").string(), kPatience);
  BOOST_TEST((missing.error().code == ErrorCode::not_found));
  const auto long_path = Client::connect(std::string(200, 'x'), kPatience);
  BOOST_TEST((long_path.error().code == ErrorCode::not_found));
  int fds[2];
  BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const UniqueFd silent(fds[1]);
  const auto mute = Client::connect(UniqueFd(fds[0]), 50ms);
  BOOST_TEST((mute.error().code == ErrorCode::deadline_exceeded), mute.error().message);
}

BOOST_AUTO_TEST_CASE(a_client_without_room_says_so) {
  const auto check = [](auto refused) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const UniqueFd silent(fds[1]);
    const auto client = [&] {
      const typename decltype(refused)::type while_refused;
      return Client::connect(UniqueFd(fds[0]), kPatience);
    }();
    BOOST_REQUIRE(!client.ok());
    BOOST_TEST((client.error().code == ErrorCode::no_room), client.error().message);
    BOOST_TEST(::fcntl(fds[0], F_GETFD) == -1, "the socket is still open");
  };
  check(std::type_identity<fakes::NoThreads>{});
  check(std::type_identity<fakes::NoDescriptors>{});  // a thread, but no loop
}

BOOST_AUTO_TEST_CASE(a_server_that_stops_tells_what_has_ended) {
  TestServer server;
  const auto client = server.connect();
  auto generating = client->generate(request());
  BOOST_REQUIRE(generating.ok());
  server.core().set_draining();
  server.engine.token(0, 0, FinishReason::length);
  server.stop();
  Collected got;
  got.collect(**generating);
  BOOST_TEST(got.end->ok(), why(*got.end));
  BOOST_TEST(got.text == "a");
}

}  // namespace chainpump::gateway::rpc
