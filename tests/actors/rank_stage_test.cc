// One rank's life by hand, over loopback links and a tiny model: every command in every state.
#include "actors/rank_stage.h"

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <map>

#include "actors/convert.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {
namespace {

using namespace std::chrono_literals;

/// What a command was answered, or nothing yet.
template <typename T>
struct Answer {
  std::shared_ptr<std::optional<Result<T>>> held = std::make_shared<std::optional<Result<T>>>();
  rpc::Reply<T> reply() const {
    return rpc::Reply<T>([held = held](Result<T> result) { *held = std::move(result); });
  }
  bool come() const { return held->has_value(); }
  bool ok() const { return come() && (*held)->ok(); }
  const Error& error() const { return (*held)->error(); }
};

graph::Plan make_chain_plan(const std::string& path, int32_t num_stages, int32_t layers) {
  graph::Plan plan;
  plan.model_path = path;
  plan.context_tokens = 64;
  plan.prefill_chunk_tokens = plan.max_microbatch_tokens = 8;
  plan.max_sequences = 2;
  plan.max_microbatches = num_stages + 1;
  plan.kv = {.type = DType::f32, .block_tokens = 32, .num_blocks = 4};
  for (int32_t i = 0; i < num_stages; ++i) {
    graph::StagePlan stage;
    stage.index = StageIndex(i);
    stage.layer_begin = layers * i / num_stages;
    stage.layer_end = layers * (i + 1) / num_stages;
    stage.has_embedding = i == 0;
    stage.has_head = i + 1 == num_stages;
    plan.stages.push_back(stage);
    graph::EdgePlan edge;
    edge.id = EdgeId(static_cast<uint32_t>(i));
    edge.from = StageIndex(i);
    edge.to = StageIndex((i + 1) % num_stages);
    edge.is_return = i + 1 == num_stages;
    edge.transport = graph::TransportKind::loopback;
    edge.credits = 4;
    edge.slot_payload_bytes = 8 * 64 * int64_t{sizeof(float)};
    edge.slot_metadata_bytes = 8192;
    plan.edges.push_back(edge);
  }
  return plan;
}

struct Ranks {
  TemporaryFolder temporary;
  std::filesystem::path folder = temporary.path();
  graph::Plan plan;
  std::shared_ptr<LoopbackHub> hub = std::make_shared<LoopbackHub>();
  std::vector<std::unique_ptr<RankStage>> stages;
  std::vector<TokenId> tokens;
  std::map<uint64_t, Answer<Ok>> ends;  // by request
  size_t num_messages = 0;
  rpc::LaneStats stats;  // the latest

  explicit Ranks(int32_t num_stages) {
    const fakes::TinyShape shape;
    fakes::TinyLlama(shape, 5).write(folder / "tiny.gguf");
    plan = make_chain_plan(folder / "tiny.gguf", num_stages, shape.layers);
    for (int32_t i = 0; i < num_stages; ++i)
      stages.push_back(std::make_unique<RankStage>(
          hub, std::make_shared<transport::Waiter>(transport::WaiterOptions{}),
          std::make_shared<StepTrace>(), steady_clock()));
  }

  Answer<rpc::LoadReport> load(int32_t stage) { return load(stage, static_cast<uint32_t>(stage)); }
  Answer<rpc::LoadReport> load(int32_t stage, uint32_t rank) {
    Answer<rpc::LoadReport> answer;
    stages[static_cast<size_t>(stage)]->load(
        {.params = {.plan = to_wire(plan), .rank = rank, .spin_between_ops = false},
         .progress = [](int64_t, int64_t) {},
         .reply = answer.reply()});
    return answer;
  }
  Answer<Ok> connect(int32_t stage) {
    const auto count = static_cast<uint32_t>(stages.size());
    const auto out = static_cast<uint32_t>(stage);
    Answer<Ok> answer;
    ConnectCommand command{.params = {}, .reply = answer.reply()};
    command.params.links.push_back({.edge = out, .secret = 7, .incarnation = 1});
    command.params.accept.push_back(
        {.edge = (out + count - 1) % count, .secret = 7, .incarnation = 1});
    stages[out]->connect(std::move(command));
    return answer;
  }
  /// Attaches a client to the first stage; what its requests come to is kept.
  void attach() {
    Answer<Ok> answer;
    stages[0]->attach({.client = 1,
                       .sink =
                           [this](rpc::LaneResults results) {
                             ++num_messages;
                             stats = results.stats;
                             for (const auto& result : results.tokens)
                               tokens.push_back(result.token);
                             for (const auto& end : results.ends)
                               *ends[end.request_id].held = end.how;
                             return ok_status();
                           },
                       .reply = answer.reply()});
    BOOST_REQUIRE(answer.ok());
  }
  /// The request's end, or why it was not even taken in.
  Answer<Ok> submit(int32_t stage, uint64_t id, int32_t max_new, std::string full_path = "",
                    Duration timeout = 0s) {
    const Answer<Ok> answer = ends[id] = {};
    SubmitCommand command{.client = 1, .requests = {{}}, .reply = {}};
    rpc::GenerateRequest& request = command.requests[0];
    request.request_id = id;
    request.prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
    request.sampling.max_new_tokens = max_new;
    request.sampling.ignore_eos = true;
    request.timeout_ns = timeout.count();
    if (!full_path.empty())
      request.score = {.first_position = 0, .full_path = std::move(full_path)};
    command.reply = rpc::Reply<Ok>([held = answer.held](Result<Ok> taken) {
      if (!taken.ok()) *held = std::move(taken);
    });
    stages[static_cast<size_t>(stage)]->submit(std::move(command));
    return answer;
  }
  template <typename Command>
  Answer<Ok> tell(int32_t stage, void (RankStage::*method)(Command), Command command = {}) {
    Answer<Ok> answer;
    command.reply = answer.reply();
    (stages[static_cast<size_t>(stage)].get()->*method)(std::move(command));
    return answer;
  }
  Answer<Ok> shutdown(int32_t stage) { return tell(stage, &RankStage::shutdown); }
  Answer<Ok> watch(int32_t stage) { return tell(stage, &RankStage::watch); }

  void open() {
    for (int32_t i = 0; i < static_cast<int32_t>(stages.size()); ++i)
      BOOST_REQUIRE_MESSAGE(load(i).ok(), "load of stage " << i);
    std::vector<Answer<Ok>> opened;
    for (int32_t i = 0; i < static_cast<int32_t>(stages.size()); ++i) opened.push_back(connect(i));
    tick_until([&] {
      return std::all_of(opened.begin(), opened.end(), [](const auto& a) { return a.ok(); });
    });
    attach();
  }
  template <typename Condition>
  void tick_until(Condition condition) {
    const TimePoint deadline = steady_clock().now() + 20s;
    while (!condition()) {
      BOOST_REQUIRE((steady_clock().now() < deadline));
      for (const auto& stage : stages) {
        stage->wake();
        if (stage->ticking()) stage->tick();
      }
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(commands_out_of_order_are_refused) {
  Ranks ranks(2);
  const auto refused = [](const auto& answer) {
    return answer.come() && !answer.ok() && answer.error().code == ErrorCode::invalid_argument;
  };
  BOOST_TEST(refused(ranks.connect(0)));
  BOOST_TEST(refused(ranks.submit(0, 1, 1)));
  BOOST_TEST(refused(ranks.watch(0)));
  Answer<rpc::RankStats> stats;
  ranks.stages[0]->stats({.reply = stats.reply()});
  BOOST_TEST(refused(stats));
  ranks.open();
  BOOST_TEST(refused(ranks.load(0)));
  BOOST_TEST(refused(ranks.connect(0)));
  BOOST_TEST(refused(ranks.submit(1, 1, 1)));  // only the first takes requests
  const auto running = ranks.submit(0, 1, 5);
  ranks.tick_until([&] { return running.come(); });
  BOOST_TEST(running.ok());
  BOOST_TEST(ranks.tokens.size() == 5u);
}

BOOST_AUTO_TEST_CASE(a_load_that_makes_no_sense_can_be_corrected) {
  Ranks ranks(1);
  const graph::Plan good = ranks.plan;
  const auto refused_as = [&](ErrorCode code) {
    const auto answer = ranks.load(0);
    return answer.come() && !answer.ok() && answer.error().code == code;
  };
  ranks.plan.model_path += ".missing";
  BOOST_TEST(refused_as(ErrorCode::not_found));
  ranks.plan = good;
  ranks.plan.kv.num_blocks = 0;
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  ranks.plan.edges[0].credits = 2000;  // more than a link can have
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  ranks.plan.stages[0].devices.clear();  // no lane
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  BOOST_TEST((ranks.load(0, 1).error().code == ErrorCode::invalid_argument));  // no such rank
  ranks.plan.edges.clear();
  BOOST_TEST(refused_as(ErrorCode::invalid_argument));
  ranks.plan = good;
  BOOST_TEST(ranks.load(0).ok());
}

BOOST_AUTO_TEST_CASE(a_failing_stage_tells_its_watcher_and_keeps_its_links) {
  Ranks ranks(3);
  ranks.open();
  const auto first = ranks.watch(0);
  const auto middle = ranks.watch(1);
  const auto last = ranks.watch(2);
  const auto doomed = ranks.submit(0, 1, 1, ranks.folder / "no folder" / "full.npy");
  ranks.tick_until([&] { return last.come(); });
  BOOST_TEST(last.error().message.find("full.npy") != std::string::npos);
  for (int i = 0; i < 3; ++i) {
    for (const auto& stage : ranks.stages) {
      stage->wake();
      if (stage->ticking()) stage->tick();
    }
  }
  BOOST_TEST(!first.come());  // it is not their fault
  BOOST_TEST(!middle.come());
  BOOST_TEST(!ranks.stages[2]->ticking());
  BOOST_TEST(ranks.watch(2).error().message == last.error().message);  // also who asks later
  BOOST_TEST(ranks.shutdown(2).ok());
  BOOST_TEST(ranks.stages[2]->gone());
  ranks.stages[2].reset();  // now its neighbours notice
  ranks.stages.pop_back();
  ranks.tick_until([&] { return first.come() && middle.come() && doomed.come(); });
  BOOST_TEST((first.error().code == ErrorCode::disconnected));
  BOOST_TEST((middle.error().code == ErrorCode::disconnected));
  BOOST_TEST((doomed.error().code == ErrorCode::disconnected));
  BOOST_TEST((ranks.submit(0, 2, 1).error().code == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(a_shutdown_in_every_state) {
  Ranks ranks(2);
  ranks.open();
  const auto running = ranks.submit(0, 1, 50);
  const auto watched = ranks.watch(0);
  ranks.tick_until([&] { return ranks.tokens.size() >= 3; });
  const TimePoint began = steady_clock().now();
  const auto first = ranks.shutdown(0);
  const auto second = ranks.shutdown(1);
  BOOST_TEST((running.error().code == ErrorCode::cancelled));
  BOOST_TEST((watched.error().code == ErrorCode::cancelled));
  BOOST_TEST((ranks.submit(0, 2, 1).error().code == ErrorCode::cancelled));
  BOOST_TEST((ranks.shutdown(0).error().code == ErrorCode::invalid_argument));
  ranks.tick_until([&] { return first.ok() && second.ok(); });
  BOOST_TEST(to_ms(steady_clock().now() - began) < 500.0);  // both closed: no deadline was needed
  BOOST_TEST(ranks.stages[0]->gone());

  Ranks empty(1);
  BOOST_TEST(empty.shutdown(0).ok());
  BOOST_TEST(empty.stages[0]->gone());

  Ranks lonely(2);  // stopped before its links are open
  BOOST_REQUIRE(lonely.load(0).ok());
  const auto opened = lonely.connect(0);
  const auto left = lonely.shutdown(0);
  BOOST_TEST((opened.error().code == ErrorCode::cancelled));
  BOOST_TEST(left.ok());
  BOOST_TEST(lonely.stages[0]->gone());
}

/// A client of its own, whose results go where the test says.
struct OtherClient {
  Ranks& ranks;
  std::map<uint64_t, Answer<Ok>> ends;
  Status taken = ok_status();
  explicit OtherClient(Ranks& given) : ranks(given) {
    Answer<Ok> answer;
    ranks.stages[0]->attach({.client = 2,
                             .sink = [this](const rpc::LaneResults& results) -> Status {
                               if (!taken.ok() && !(results.tokens.empty())) return taken;
                               for (const auto& end : results.ends)
                                 *ends[end.request_id].held = end.how;
                               return ok_status();
                             },
                             .reply = answer.reply()});
    BOOST_REQUIRE(answer.ok());
  }
  Answer<Ok> submit(uint64_t id, int32_t max_new) {
    SubmitCommand command{.client = 2, .requests = {{}}, .reply = Answer<Ok>().reply()};
    command.requests[0].request_id = id;
    command.requests[0].prompt = {1, 2, 3};
    command.requests[0].sampling.max_new_tokens = max_new;
    command.requests[0].sampling.ignore_eos = true;
    ranks.stages[0]->submit(std::move(command));
    return ends[id];
  }
};

BOOST_AUTO_TEST_CASE(a_sink_that_refuses_ends_what_it_refused_only) {
  Ranks ranks(2);
  ranks.open();
  OtherClient full(ranks);
  full.taken = make_error(ErrorCode::overloaded, "full");
  const auto refused = full.submit(9, 40);
  const auto other = ranks.submit(0, 9, 20);  // the same id of another client is another request
  ranks.tick_until([&] { return refused.come() && other.come(); });
  BOOST_TEST((refused.error().code == ErrorCode::overloaded));
  BOOST_TEST(other.ok());
  BOOST_TEST(ranks.tokens.size() == 20u);
}

// What a client chooses between lanes by: how it stands when the results were made, and how many
// requests of this client it counts.
BOOST_AUTO_TEST_CASE(results_say_how_the_lane_stands) {
  Ranks ranks(2);
  ranks.open();
  OtherClient other(ranks);
  const auto first = ranks.submit(0, 1, 20), second = ranks.submit(0, 2, 20);
  const auto third = other.submit(1, 20);  // two run at once: this one waits
  ranks.tick_until([&] { return ranks.tokens.size() >= 4; });
  BOOST_TEST(ranks.stats.num_taken == 2u);
  BOOST_TEST(ranks.stats.num_running == 2);
  BOOST_TEST(ranks.stats.queue_room == ranks.plan.max_queued - 1);
  BOOST_TEST(ranks.stats.waiting_tokens > 0);
  BOOST_TEST(ranks.stats.num_free_blocks < ranks.plan.kv.num_blocks);
  BOOST_TEST(ranks.stats.tokens_per_s > 0);
  (void)ranks.submit(0, 2, 20);  // refused, and counted
  ranks.ends[2] = second;
  BOOST_TEST(ranks.stats.num_taken == 3u);
  ranks.tick_until([&] { return first.come() && second.come() && third.come(); });
  const auto last = ranks.submit(0, 4, 20);
  ranks.tick_until([&] { return last.come(); });
  BOOST_TEST(ranks.stats.num_taken == 4u);
  BOOST_TEST(ranks.stats.num_running == 0);
  BOOST_TEST(ranks.stats.waiting_tokens == 0);
  BOOST_TEST(ranks.stats.queue_room == ranks.plan.max_queued);
}

BOOST_AUTO_TEST_CASE(a_client_that_leaves_takes_its_requests_along) {
  Ranks ranks(2);
  ranks.open();
  OtherClient leaving(ranks);
  const auto gone = leaving.submit(1, 50);
  const auto stays = ranks.submit(0, 2, 20);
  ranks.tick_until([&] { return ranks.tokens.size() >= 3; });
  ranks.stages[0]->detach({.client = 2});
  ranks.tick_until([&] { return stays.come(); });
  BOOST_TEST(stays.ok());
  BOOST_TEST(!gone.come());
  SubmitCommand late{.client = 2, .requests = {{}}, .reply = {}};
  Answer<Ok> refused;
  late.reply = refused.reply();
  ranks.stages[0]->submit(std::move(late));
  BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  // Its place and its blocks are free: two of the most that fit run at once.
  const auto first = ranks.submit(0, 3, 40), second = ranks.submit(0, 4, 40);
  ranks.tick_until([&] { return first.come() && second.come(); });
  BOOST_TEST(first.ok());
  BOOST_TEST(second.ok());
}

BOOST_AUTO_TEST_CASE(a_request_ends_once_whatever_ends_it) {
  Ranks ranks(2);
  ranks.open();
  const auto cancelled = ranks.submit(0, 1, 50);
  const auto twice = ranks.submit(0, 1, 50);  // the id is taken: this one never ran
  BOOST_TEST((ranks.ends[1].error().code == ErrorCode::invalid_argument));
  ranks.ends[1] = cancelled;
  CancelCommand command;
  command.client = 1;
  command.request_ids = {1, 77};  // 77 is nobody's
  BOOST_TEST(ranks.tell(0, &RankStage::cancel, std::move(command)).ok());
  BOOST_TEST((cancelled.error().code == ErrorCode::cancelled));
  const auto late = ranks.submit(0, 2, 50, "", 1ns);
  ranks.tick_until([&] { return late.come(); });
  BOOST_TEST((late.error().code == ErrorCode::deadline_exceeded));
  const size_t before = ranks.num_messages;
  const size_t tokens_before = ranks.tokens.size();
  const auto a = ranks.submit(0, 3, 20), b = ranks.submit(0, 4, 20);
  ranks.tick_until([&] { return a.come() && b.come(); });
  BOOST_TEST(ranks.tokens.size() - tokens_before == 40u);
  BOOST_TEST(ranks.num_messages - before <= 40u);  // one a step at most
}

}  // namespace chainpump::actors
