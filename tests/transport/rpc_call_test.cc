// Control calls over a socketpair against a handler that answers from other threads.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "tests/transport/fake_rank.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using transport::FaultOrder;
using transport::FaultPoint;
using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(every_method_answers) {
  Fixture f;
  BOOST_TEST(f.hello()->pid == getpid());
  LoadParams params;
  params.plan.model_path = "m";
  params.plan.kv.type = "bf16";
  params.plan.stages.resize(2);
  params.plan.stages[1].name = "tail";
  const auto report =
      f.call<LoadReport>([&](auto done) { f.client->load(params, 5s, nullptr, done); });
  BOOST_TEST(report->numerics_id == "bf16tail");
  BOOST_TEST(report->listen_port == 4242);
  ConnectParams links;
  links.epoch = 0x80000001;
  links.links.push_back({1, "127.0.0.1", 99, ~0ull, 1});
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->connect(links, 5s, done); }).ok());
  BOOST_TEST(f.rank.connect_epoch == 0x80000001u);

  std::promise<void> ended;
  LaneResults got;
  const auto take = [&](LaneResults more) {
    got.tokens.insert(got.tokens.end(), more.tokens.begin(), more.tokens.end());
    got.scores.insert(got.scores.end(), more.scores.begin(), more.scores.end());
    got.ends.insert(got.ends.end(), more.ends.begin(), more.ends.end());
    got.stats = more.stats;
    if (got.ends.size() == 2) ended.set_value();
  };
  f.client->attach(0, take, 5s, [](const Result<Ok>& attached) { BOOST_TEST(attached.ok()); });
  GenerateRequest request{
      .request_id = 6, .sequence_index = 3, .prompt = {}, .sampling = {}, .score = {}};
  for (int i = 0; i < 10000; ++i) request.prompt.push_back(i * 3);
  GenerateRequest other{
      .request_id = 7, .sequence_index = 0, .prompt = {5}, .sampling = {}, .score = {}};
  other.timeout_ns = 1;
  other.num_sequences = 2;
  other.tenant = 0xFFFFFFFF;
  other.cache_salt = UINT64_MAX;
  other.priority = -5;
  other.generated = {8, -1};
  other.readmitted = true;
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->submit(0, {request, other}, 5s, done); }).ok());
  BOOST_REQUIRE((ended.get_future().wait_for(5s) == std::future_status::ready));
  BOOST_REQUIRE_EQUAL(got.tokens.size(), 10001u);  // all before the ends, in order
  for (int i = 0; i < 10000; ++i)
    BOOST_REQUIRE_EQUAL(got.tokens[static_cast<size_t>(i)].token, i * 3);
  BOOST_TEST(got.tokens.back().request_id == 7u);
  BOOST_TEST(f.rank.last_submitted.timeout_ns == 1);
  BOOST_TEST(f.rank.last_submitted.num_sequences == 2);
  BOOST_TEST(f.rank.last_submitted.tenant == 0xFFFFFFFFu);
  BOOST_TEST(f.rank.last_submitted.cache_salt == UINT64_MAX);
  BOOST_TEST(f.rank.last_submitted.priority == -5);
  BOOST_TEST((f.rank.last_submitted.generated == std::vector<int32_t>{8, -1}));
  BOOST_TEST(f.rank.last_submitted.readmitted);
  BOOST_TEST(got.scores.size() == 2u);
  BOOST_TEST(got.stats.num_taken == 7u);  // the latest
  BOOST_TEST(got.stats.queue_room == 9);
  BOOST_TEST(got.stats.tokens_per_s == 0.5);
  BOOST_TEST(got.ends[0].sequence_index == 3u);
  BOOST_TEST((got.ends[0].how.error().code == ErrorCode::no_room));
  BOOST_TEST(got.ends[0].how.error().message == "[the] end");
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->cancel(0, {8, 9}, 5s, done); }).ok());
  BOOST_TEST((f.rank.cancelled == std::vector<std::pair<uint64_t, uint64_t>>{{1, 8}, {1, 9}}));
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->shutdown(5s, done); }).ok());
  BOOST_TEST(f.served.get().ok());
}

BOOST_AUTO_TEST_CASE(errors_keep_code_and_text) {
  Fixture f;
  const auto early = f.call<RankStats>([&](auto done) { f.client->stats(5s, done); });
  BOOST_TEST((early.error().code == ErrorCode::invalid_argument));
  BOOST_REQUIRE(f.hello().ok());
  const auto bad = f.call<LoadReport>([&](auto done) { f.client->load({}, 5s, nullptr, done); });
  BOOST_TEST((bad.error().code == ErrorCode::bad_file));
  BOOST_TEST(bad.error().message == "tensor blk.3: [cut]\nsecond line");
  const auto dropped = f.call<Ok>([&](auto done) { f.client->connect({}, 5s, done); });
  BOOST_TEST((dropped.error().code == ErrorCode::internal));
  const auto late = f.call<RankStats>([&](auto done) { f.client->stats(30ms, done); });
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
}

BOOST_AUTO_TEST_CASE(another_build_is_refused_by_name) {
  Fixture f({.build = "9.9+other"});
  const auto refused = f.hello();
  BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(refused.error().message.find("9.9+other") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_client_that_leaves_is_detached_and_its_sink_closed) {
  Fixture f;
  ResultSinkHandle sink = f.attach({});
  f.client.reset();
  BOOST_TEST(f.rank.wait_for([&] { return f.rank.detached == std::vector<uint64_t>{1}; }));
  BOOST_TEST(
      (sink.push({.tokens = std::vector<TokenResult>(5), .scores = {}, .ends = {}}).error().code ==
       ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(each_lane_once_on_a_connection_and_none_before_attach) {
  Fixture f;
  BOOST_REQUIRE(f.hello().ok());
  const auto attach = [&](uint8_t lane) {
    return f.call<Ok>([&](auto done) { f.client->attach(lane, {}, 5s, done); });
  };
  const auto submit = [&](uint8_t lane) {
    return f.call<Ok>([&](auto done) { f.client->submit(lane, {}, 5s, done); });
  };
  BOOST_TEST((submit(0).error().code == ErrorCode::invalid_argument));
  BOOST_TEST(attach(0).ok());
  BOOST_TEST((attach(0).error().code == ErrorCode::invalid_argument));
  BOOST_TEST((submit(3).error().code == ErrorCode::invalid_argument));
  BOOST_TEST(attach(3).ok());
  BOOST_TEST(submit(3).ok());
  BOOST_TEST(submit(0).ok());
  // Each is a client of its own, of its lane.
  BOOST_TEST((f.rank.lanes == std::map<uint64_t, uint8_t>{{1, 0}, {2, 3}}));
}

// The callback is held up, so that nothing is taken.
BOOST_AUTO_TEST_CASE(a_full_sink_says_overloaded_and_still_takes_ends) {
  std::promise<void> first_came, go_on;
  std::atomic<size_t> num_ends = 0;
  auto gate = go_on.get_future().share();
  Fixture f({.build = "", .sink_results_max = 4});
  ResultSinkHandle sink = f.attach([&, first = true](const LaneResults& results) mutable {
    num_ends += results.ends.size();
    if (std::exchange(first, false)) first_came.set_value(), gate.wait();
  });
  const auto push = [&](size_t tokens, size_t ends) {
    return sink.push({.tokens = std::vector<TokenResult>(tokens),
                      .scores = {},
                      .ends = std::vector<RequestEnd>(ends)});
  };
  BOOST_TEST((push(5, 0).error().code == ErrorCode::overloaded));
  BOOST_TEST(push(4, 0).ok());
  first_came.get_future().wait();
  // What the library has taken already, up to its window, is no longer in the queue.
  const TimePoint deadline = steady_clock().now() + 20s;
  Status full = ok_status();
  while (full.ok() && steady_clock().now() < deadline) full = push(1, 0);
  BOOST_TEST((full.error().code == ErrorCode::overloaded));
  BOOST_TEST(push(0, 3).ok());
  BOOST_TEST((push(0, 9).error().code == ErrorCode::disconnected));  // a client that never reads
  go_on.set_value();
}

BOOST_AUTO_TEST_CASE(a_watch_lasts_until_it_is_answered) {
  for (const bool of_links : {false, true}) {
    Fixture f;
    BOOST_REQUIRE(f.hello().ok());
    std::promise<Error> broken;
    f.client->watch(of_links, [&](Result<Ok> end) { broken.set_value(end.error()); });
    BOOST_TEST(
        f.call<Ok>([&](auto done) { f.client->attach(0, {}, 5s, done); }).ok());  // it has come
    BOOST_TEST(f.rank.watches_links == of_links);
    f.rank.held_watch(make_error(ErrorCode::no_room, "the disk is full"));
    auto told = broken.get_future();
    BOOST_REQUIRE(told.wait_for(5s) == std::future_status::ready);
    const Error why = told.get();
    BOOST_TEST((why.code == ErrorCode::no_room));
    BOOST_TEST(why.message == "the disk is full");
  }
}

BOOST_AUTO_TEST_CASE(a_beat_is_a_count) {
  Fixture f;
  BOOST_REQUIRE(f.hello().ok());
  const auto beat = f.call<BeatReply>([&](auto done) { f.client->beat(5s, done); });
  BOOST_REQUIRE(beat.ok());
  BOOST_TEST(beat->count == UINT64_MAX - 7);
  BOOST_REQUIRE(beat->links.size() == 2u);
  const LinkBeat& link = beat->links[0];
  BOOST_TEST((link.edge == 3 && link.incarnation == 4 && link.is_sender && link.spoken == 5 &&
              link.heard == 6 && link.looked_ago_ns == 7));
  BOOST_TEST((beat->links[1].edge == 8 && !beat->links[1].is_sender));
}

BOOST_AUTO_TEST_CASE(a_fault_arrives_as_it_was_sent_unless_it_makes_no_sense) {
  Fixture f;
  const auto arm = [&](const FaultOrder& fault) {
    return f.call<Ok>([&](auto done) { f.client->arm(fault, 5s, done); });
  };
  using Kind = FaultOrder::Kind;
  BOOST_TEST((arm({}).error().code == ErrorCode::invalid_argument));  // before hello
  BOOST_REQUIRE(f.hello().ok());
  for (const FaultOrder& fault :
       {FaultOrder{.kind = Kind::death, .point = FaultPoint::filling, .count = 1'000'000},
        FaultOrder{.kind = Kind::slowness, .factor = 2.5, .lasts = 60s},
        FaultOrder{.kind = Kind::silence, .lasts = 1ns, .of_input = true},
        FaultOrder{.kind = Kind::damage, .of_output = true, .of_header = true}, FaultOrder{}}) {
    BOOST_TEST(arm(fault).ok());
    BOOST_TEST((f.rank.armed == fault));
  }
  for (const FaultOrder& fault :
       {FaultOrder{.kind = Kind::death, .count = 0},
        FaultOrder{.kind = Kind::damage, .count = 1'000'001},
        FaultOrder{.kind = Kind::slowness, .factor = 2},
        FaultOrder{.kind = Kind::slowness, .factor = 0.5, .lasts = 1s},
        FaultOrder{.kind = Kind::slowness, .factor = std::nan(""), .lasts = 1s},
        FaultOrder{.kind = Kind::silence, .lasts = 61s, .of_output = true},
        FaultOrder{.kind = Kind::silence, .lasts = 1s}}) {
    BOOST_TEST((arm(fault).error().code == ErrorCode::invalid_argument));
    BOOST_TEST((f.rank.armed == FaultOrder{}));
  }
}

BOOST_AUTO_TEST_CASE(a_copy_is_asked_for_and_says_how_far_it_is) {
  Fixture f;
  const KvCopy copy{.epoch = 3,
                    .incarnation = 2,
                    .secret = ~0ull,
                    .layer_begin = 4,
                    .layer_end = 9,
                    .address = "127.0.0.1",
                    .port = 65535,
                    .lanes = {0, 255},
                    .part = 4,
                    .parts = 9};
  const auto take_in = [&] {
    return f.call<KvAddress>([&](auto done) { f.client->take_in(copy, 5s, done); });
  };
  BOOST_TEST((take_in().error().code == ErrorCode::invalid_argument));  // before hello
  BOOST_REQUIRE(f.hello().ok());
  const Result<KvAddress> where = take_in();
  BOOST_REQUIRE(where.ok());
  BOOST_TEST((where->address == "here" && where->port == 65534));
  BOOST_TEST((f.rank.copy.lanes == copy.lanes && f.rank.copy.part == 4 && f.rank.copy.parts == 9));
  BOOST_TEST((f.rank.copy.secret == copy.secret && f.rank.copy.layer_end == 9));
  BOOST_TEST((f.rank.copy.address == copy.address && f.rank.copy.port == copy.port));
  std::promise<std::pair<int64_t, int64_t>> far;
  std::promise<Result<Ok>> copied;
  f.client->copy(
      copy, 5s,
      [&](int64_t done, int64_t total) {
        far.set_value({done, total});
      },
      [&](Result<Ok> done) { copied.set_value(std::move(done)); });
  BOOST_TEST((far.get_future().get() == std::pair<int64_t, int64_t>(3, 7)));
  BOOST_TEST(f.call<Ok>([&](auto done) { f.client->finish_copy(5s, done); }).ok());
  BOOST_TEST(copied.get_future().get().ok());
}

BOOST_AUTO_TEST_CASE(a_fence_answers_with_what_is_held_and_a_resume_takes_it) {
  Fixture f;
  const auto fence = [&](uint8_t lane, uint32_t epoch) {
    return f.call<StageHoldings>([&](auto done) { f.client->fence(lane, epoch, 5s, done); });
  };
  const auto resume = [&](uint8_t lane, std::vector<StageHoldings> stages) {
    return f.call<Ok>([&](auto done) { f.client->resume(lane, 9, std::move(stages), 5s, done); });
  };
  BOOST_TEST((fence(1, 2).error().code == ErrorCode::invalid_argument));  // before hello
  BOOST_TEST((resume(5, {}).error().code == ErrorCode::invalid_argument));
  BOOST_REQUIRE(f.hello().ok());
  const Result<StageHoldings> holdings = fence(255, UINT32_MAX);
  BOOST_REQUIRE(holdings.ok());
  BOOST_TEST(holdings->stage == 255);
  BOOST_TEST((holdings->sequences == std::vector<uint64_t>{UINT32_MAX, UINT64_MAX}));
  BOOST_TEST((holdings->held_positions == std::vector<int32_t>{7, INT32_MAX}));
  BOOST_TEST((holdings->blocks == std::vector<int32_t>{3}));
  BOOST_TEST((holdings->logged_positions == std::vector<int32_t>{16}));
  BOOST_TEST(fence(1, 0).error().message == "epoch 0 is over");
  BOOST_TEST(resume(5, {*holdings, {}}).ok());
  BOOST_TEST(f.rank.resume_epoch == 9u);
  BOOST_REQUIRE_EQUAL(f.rank.resumed.size(), 2u);
  BOOST_TEST(f.rank.resumed[0].stage == 255);
  BOOST_TEST((f.rank.resumed[0].sequences == holdings->sequences));
  BOOST_TEST((f.rank.resumed[0].logged_positions == holdings->logged_positions));
  BOOST_TEST(f.rank.resumed[1].sequences.empty());
  BOOST_TEST(resume(5, {}).ok());
  BOOST_TEST(f.rank.resumed.empty());
  BOOST_TEST(resume(4, {}).error().message == "lane 4 is at work");
}

// Results that are pushed at any moment, the one when the pump has just found nothing included,
// come, each once.
BOOST_AUTO_TEST_CASE(no_result_is_lost_however_pushes_fall) {
  constexpr size_t kPushes = 200;
  for (size_t round = 0; round < 60; ++round) {
    Fixture f;
    size_t num_arrived = 0;
    std::promise<size_t> arrived_at_end;
    ResultSinkHandle sink = f.attach([&](const LaneResults& results) {
      num_arrived += results.tokens.size();
      if (!results.ends.empty()) arrived_at_end.set_value(num_arrived);
    });
    for (size_t i = 0; i < kPushes; ++i) {
      BOOST_REQUIRE(
          sink.push({.tokens = std::vector<TokenResult>(1), .scores = {}, .ends = {}}).ok());
      // A gap of another length each time: it falls on every stage of the pump's round.
      const TimePoint until = steady_clock().now() + Duration((i * 37 + round * 911) % 60'000);
      while (steady_clock().now() < until) continue;
    }
    BOOST_REQUIRE(sink.push({.tokens = {}, .scores = {}, .ends = {RequestEnd{}}}).ok());
    auto end = arrived_at_end.get_future();
    BOOST_REQUIRE(end.wait_for(10s) == std::future_status::ready);
    BOOST_TEST(end.get() == kPushes);
  }
}

// The results of one step are one message, however many sequences they are of. Goal: a token
// crosses from the stage's thread to the callback in 50 us at the median.
BOOST_AUTO_TEST_CASE(a_step_is_one_message_and_takes_microseconds) {
  for (const size_t num_sequences : {1, 256}) {
    Fixture f;
    std::mutex mutex;
    std::condition_variable changed;
    TimePoint arrived;
    size_t num_messages = 0;
    ResultSinkHandle sink = f.attach([&](const LaneResults& results) {
      const std::lock_guard lock(mutex);
      arrived = steady_clock().now();
      BOOST_TEST(results.tokens.size() == num_sequences);
      ++num_messages;
      changed.notify_all();
    });
    std::vector<double> times_us;
    for (size_t i = 0; i < 500; ++i) {
      const TimePoint pushed = steady_clock().now();
      BOOST_REQUIRE(
          sink.push({.tokens = std::vector<TokenResult>(num_sequences), .scores = {}, .ends = {}})
              .ok());
      std::unique_lock lock(mutex);
      BOOST_REQUIRE(changed.wait_for(lock, 5s, [&] { return num_messages == i + 1; }));
      times_us.push_back(to_ms(arrived - pushed) * 1000);
    }
    std::sort(times_us.begin(), times_us.end());
    BOOST_TEST_MESSAGE(num_sequences << " tokens, push to callback: p50 " << times_us[250]
                                     << " us, p99 " << times_us[495] << " us");
  }
}

BOOST_AUTO_TEST_CASE(a_lost_rank_fails_open_calls) {
  int fds[2];
  BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  RpcThread thread = *RpcThread::create();
  std::promise<Error> lost, failed;
  RankClient client(thread, UniqueFd(fds[0]), [&](Error error) { lost.set_value(error); });
  client.hello(5s, [&](Result<HelloReply> reply) { failed.set_value(reply.error()); });
  close(fds[1]);
  BOOST_TEST((failed.get_future().get().code == ErrorCode::disconnected));
  BOOST_TEST((lost.get_future().get().code == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(hostile_bytes_end_the_connection) {
  const std::vector<std::vector<uint32_t>> inputs = {{0xffffffff, 1},
                                                     {100000, 1},
                                                     {0, 0x7fffffff},
                                                     {1, 0xffffffff, 0xffffffff, 0},
                                                     {0, 1, 0xdeadbeef, 0xffffffff}};
  for (const auto& input : inputs) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const UniqueFd ours(fds[0]);
    FakeRank rank;
    auto served = std::async(std::launch::async,
                             [&] { return serve_rank(UniqueFd(fds[1]), UniqueFd(), rank); });
    BOOST_REQUIRE_GT(write(ours.get(), input.data(), input.size() * 4), 0);
    BOOST_REQUIRE(served.wait_for(5s) == std::future_status::ready);
    BOOST_TEST(!served.get().ok());
  }
}
