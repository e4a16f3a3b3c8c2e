// A plan brought to life in this process: tokens, errors, cancels, stops and reports.
#include "actors/runtime.h"

#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "actors/actor_system.h"
#include "actors/stage_actor.h"
#include "graph/demo_graph.h"
#include "graph/planner.h"
#include "models/gguf/gguf.h"
#include "models/llama/profile.h"
#include "models/sleep/sleep_model.h"
#include "tests/actors/local_runtime.h"
#include "tests/fakes/no_threads.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {

using namespace std::chrono_literals;
using fakes::why;

BOOST_AUTO_TEST_CASE(a_runtime_without_threads_is_an_error) {
  const Model model;
  const graph::Plan plan = plan_for(model.path(), 1);
  for (const int room : {0, 1}) {  // of the two that the actors need; the second is time's
    const fakes::NoThreads refused(room);
    const auto runtime = Runtime::start(plan, RuntimeOptions());
    BOOST_REQUIRE(!runtime.ok());
    BOOST_TEST((runtime.error().code == ErrorCode::no_room));
  }
}

// A detached actor whose thread is refused: an error, and the system's end does not wait for it.
// CAF 0.17 does not free it (tools/lsan.supp names this test).
BOOST_AUTO_TEST_CASE(a_stage_without_a_thread_is_an_error) {
  ActorSystem actors = *ActorSystem::create();
  const fakes::NoThreads refused;
  const auto stage = spawn_stage(actors.system(), std::make_shared<LoopbackHub>(), steady_clock());
  BOOST_REQUIRE(!stage.ok());
  BOOST_TEST((stage.error().code == ErrorCode::no_room));
}

BOOST_AUTO_TEST_CASE(sleeping_stages_say_what_the_sequences_decide) {
  const Model model;
  for (const int32_t stages : {1, 2, 5}) {
    graph::Plan plan = plan_for(model.path(), stages);
    if (stages == 2) plan.prefill_chunk_tokens = 0;  // as many as the time allows
    plan.model_path = models::sleep_model_name({{1e-4, 0, 0}, {}, {}, {0, 1e-6, 0}, {}});
    const auto runtime = start_ready(plan);
    std::vector<Listener> listeners(6);
    const auto prompt_tokens = [](size_t i) { return static_cast<int32_t>(20 + i * 9); };
    for (size_t i = 0; i < listeners.size(); ++i)
      runtime->submit(request(prompt_tokens(i), 30), kPatience, listeners[i].callbacks());
    for (size_t i = 0; i < listeners.size(); ++i) {
      const Result<Ok> end = listeners[i].wait_end();
      BOOST_REQUIRE_MESSAGE(end.ok(), why(end));
      models::SleepHash hash(42, 0);
      for (const TokenId token : request(prompt_tokens(i), 30).prompt) hash.add(token);
      std::vector<TokenId> expected;
      for (int32_t n = 0; n < 30; ++n) {
        expected.push_back(hash.next());
        hash.add(expected.back());
      }
      BOOST_TEST(listeners[i].tokens == expected);
    }
  }
}

BOOST_AUTO_TEST_CASE(tokens_do_not_depend_on_the_cut) {
  const Model model;
  std::vector<TokenId> greedy, seeded;
  for (const int32_t stages : {1, 2, 3, 5}) {
    const auto runtime = start_ready(plan_for(model.path(), stages));
    const auto now_greedy = generate(*runtime, request(50, 40));
    const auto now_seeded = generate(*runtime, request(50, 40, 1.2f));
    BOOST_TEST(now_greedy.size() == 40u);
    if (stages == 1) greedy = now_greedy, seeded = now_seeded;
    BOOST_TEST(now_greedy == greedy);
    BOOST_TEST(now_seeded == seeded);
    BOOST_TEST(now_seeded != now_greedy);
  }
}

BOOST_AUTO_TEST_CASE(the_real_model_too) {
  const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
  BOOST_REQUIRE_MESSAGE(path && std::filesystem::exists(path),
                        "CHAINPUMP_TEST_MODEL names no file: run tools/setup.sh");
  std::vector<TokenId> expected;
  for (const int32_t stages : {1, 3}) {
    const auto runtime = start_ready(plan_for(path, stages));
    const auto tokens = generate(*runtime, request(20, 8));
    if (stages == 1) expected = tokens;
    BOOST_TEST(tokens.size() == 8u);
    BOOST_TEST(tokens == expected);
  }
}

BOOST_AUTO_TEST_CASE(requests_at_once_do_not_disturb_each_other) {
  const Model model;
  const auto runtime = start_ready(plan_for(model.path(), 3));
  const auto expected_a = generate(*runtime, request(30, 30));
  const auto expected_b = generate(*runtime, request(45, 20, 0.9f));
  Listener a, b, scored;
  runtime->submit(request(30, 30), kPatience, a.callbacks());
  runtime->submit(request(45, 20, 0.9f), kPatience, b.callbacks());
  SequenceRequest score = request(25, 1);
  score.score.first_position = 4;
  runtime->submit(score, kPatience, scored.callbacks());
  BOOST_TEST(a.wait_end().ok());
  BOOST_TEST(b.wait_end().ok());
  BOOST_TEST(scored.wait_end().ok());
  BOOST_TEST(a.tokens == expected_a);
  BOOST_TEST(b.tokens == expected_b);
  BOOST_REQUIRE_EQUAL(scored.scores.size(), 20u);
  for (int32_t i = 0; i < 20; ++i)
    BOOST_TEST(scored.scores[static_cast<size_t>(i)].position == 4 + i);
}

BOOST_AUTO_TEST_CASE(a_model_that_cannot_be_loaded_says_why) {
  const Model model;
  graph::Plan plan = plan_for(model.path(), 2);
  plan.model_path = model.folder / "missing.gguf";
  const Status missing = start(plan)->wait_ready(kPatience);
  BOOST_REQUIRE(!missing.ok());
  BOOST_TEST(missing.error().message.find("missing.gguf") != std::string::npos);
  BOOST_TEST(missing.error().message.find("stage '") == 0u);

  plan.model_path = model.folder / "bad.gguf";
  std::ofstream(plan.model_path) << "GGUF is not what this is";
  const auto runtime = start(plan);
  const Status bad = runtime->wait_ready(kPatience);
  BOOST_REQUIRE(!bad.ok());
  BOOST_TEST((bad.error().code == ErrorCode::bad_file), bad.error().message);
  Listener listener;  // a request to what has failed hears the same
  runtime->submit(request(3, 3), kPatience, listener.callbacks());
  BOOST_TEST(listener.wait_end().error().message == bad.error().message);
  BOOST_TEST(runtime->report(kPatience).error().message == bad.error().message);
}

BOOST_AUTO_TEST_CASE(a_request_that_cannot_be_is_refused) {
  const Model model;
  const auto runtime = start_ready(plan_for(model.path(), 2));
  Listener empty, foreign;
  runtime->submit(request(0, 5), kPatience, empty.callbacks());
  BOOST_TEST((empty.wait_end().error().code == ErrorCode::invalid_argument));
  SequenceRequest outside = request(3, 5);
  outside.prompt.back() = 80;
  runtime->submit(outside, kPatience, foreign.callbacks());
  BOOST_TEST((foreign.wait_end().error().code == ErrorCode::invalid_argument));
  BOOST_TEST(generate(*runtime, request(5, 5)).size() == 5u);
}

BOOST_AUTO_TEST_CASE(a_stage_that_fails_is_named_to_every_request) {
  const Model model;
  for (const int32_t stages : {1, 3}) {
    graph::Plan plan = plan_for(model.path(), stages);
    plan.failover_restarts = 0;  // another would fail as well, and again
    const auto runtime = start_ready(plan);
    Listener doomed, bystander, late;
    runtime->submit(request(10, 3000), kPatience, bystander.callbacks());
    BOOST_REQUIRE(bystander.wait_tokens(1));
    SequenceRequest unwritable = request(10, 1);
    unwritable.score.first_position = 0;
    unwritable.score.full_path = model.folder / "no folder" / "full.npy";
    const TimePoint began = steady_clock().now();
    runtime->submit(unwritable, kPatience, doomed.callbacks());
    for (Listener* listener : {&doomed, &bystander}) {
      const Result<Ok> end = listener->wait_end();
      BOOST_REQUIRE(!end.ok());
      BOOST_TEST(end.error().message.find("full.npy") != std::string::npos, end.error().message);
    }
    BOOST_TEST(to_ms(steady_clock().now() - began) < 1000.0);
    runtime->submit(request(3, 3), kPatience, late.callbacks());
    BOOST_TEST(late.wait_end().error().message.find("full.npy") != std::string::npos);
    // A stage's own requests may hear of it before the coordinator does.
    Status verdict = runtime->wait_ready(kPatience);
    while (verdict.ok() && steady_clock().now() - began < kPatience) {
      std::this_thread::yield();
      verdict = runtime->wait_ready(kPatience);
    }
    BOOST_REQUIRE(!verdict.ok());
    BOOST_TEST(verdict.error().message.find("stage '") == 0u, verdict.error().message);
  }
}

BOOST_AUTO_TEST_CASE(a_cancelled_request_ends_and_leaves_room) {
  const Model model;
  const auto runtime = start_ready(plan_for(model.path(), 2));
  for (int round = 0; round < 20; ++round) {
    Listener listener;
    const RequestId id = runtime->submit(request(40, 3000), kPatience, listener.callbacks());
    if (round % 2 == 0) BOOST_REQUIRE(listener.wait_tokens(1 + static_cast<size_t>(round)));
    runtime->cancel(id);
    BOOST_TEST((listener.wait_end().error().code == ErrorCode::cancelled));
    runtime->cancel(id);  // it has ended: no error
  }
  BOOST_TEST(generate(*runtime, request(5, 5)).size() == 5u);
}

BOOST_AUTO_TEST_CASE(stop_ends_what_runs_once) {
  const Model model;
  Listener listener;
  const auto runtime = start_ready(plan_for(model.path(), 3));
  runtime->submit(request(10, 3000), kPatience, listener.callbacks());
  BOOST_REQUIRE(listener.wait_tokens(3));
  const TimePoint began = steady_clock().now();
  runtime->stop();
  BOOST_TEST_MESSAGE("stopped in " << to_ms(steady_clock().now() - began) << " ms");
  BOOST_TEST(to_ms(steady_clock().now() - began) < 1000.0);
  BOOST_TEST((listener.wait_end().error().code == ErrorCode::cancelled));
  BOOST_TEST(listener.num_ends == 1);
  Listener late;
  runtime->submit(request(3, 3), kPatience, late.callbacks());
  BOOST_TEST((late.wait_end().error().code == ErrorCode::cancelled));
  BOOST_TEST((runtime->report(kPatience).error().code == ErrorCode::cancelled));
  runtime->stop();
}

BOOST_AUTO_TEST_CASE(stop_in_a_callback_only_sets_it_going) {
  const Model model;
  Listener listener;
  const auto runtime = start_ready(plan_for(model.path(), 2));
  SequenceCallbacks callbacks = listener.callbacks();
  callbacks.on_token = [&](const graph::TokenResult&) { runtime->stop(); };
  runtime->submit(request(10, 3000), kPatience, callbacks);
  BOOST_TEST((listener.wait_end().error().code == ErrorCode::cancelled));
  runtime->stop();
}

BOOST_AUTO_TEST_CASE(stop_while_loading_and_at_once) {
  const Model model;
  const graph::Plan plan = plan_for(model.path(), 5);
  for (int round = 0; round < 10; ++round) {
    auto runtime = start(plan);
    for (int spin = 0; spin < round; ++spin) std::this_thread::yield();
    runtime.reset();
  }
  const auto runtime = start(plan);
  runtime->stop();
  BOOST_TEST((runtime->wait_ready(kPatience).error().code == ErrorCode::cancelled));
}

BOOST_AUTO_TEST_CASE(reports_add_up) {
  const Model model;
  const TimePoint began = steady_clock().now();
  const auto runtime = start_ready(plan_for(model.path(), 3));
  BOOST_TEST(generate(*runtime, request(40, 21)).size() == 21u);
  const auto report = runtime->report(kPatience);
  BOOST_REQUIRE_MESSAGE(report.ok(), why(report));
  BOOST_TEST(!report->numerics_id.empty());
  BOOST_REQUIRE_EQUAL(report->stages.size(), 3u);
  BOOST_REQUIRE_EQUAL(report->links.size(), 3u);
  int32_t next_layer = 0;
  for (const StageReport& stage : report->stages) {
    BOOST_TEST(stage.layer_begin == next_layer);
    next_layer = stage.layer_end;
    BOOST_TEST(stage.tokens == 60u);  // 40 of the prompt and 20 of the 21 that were made
    BOOST_TEST(stage.steps >= 23u);
    BOOST_TEST(stage.weight_bytes_held > 0);
    BOOST_TEST(stage.kv_bytes > 0);
    BOOST_TEST((stage.busy > Duration(0)));
    BOOST_TEST(
        (stage.busy + stage.transfer + stage.bubble_input + stage.bubble_credit + stage.idle <=
         steady_clock().now() - began));
  }
  BOOST_TEST(next_layer == 5);
  for (const LinkReport& link : report->links) {
    BOOST_TEST(link.transport == "loopback");
    BOOST_TEST(link.frames >= 23u);
    const bool returns = link.edge == EdgeId(2);
    BOOST_TEST(link.payload_bytes == (returns ? 0u : 60u * 64u * sizeof(float)));
  }
}

}  // namespace chainpump::actors
