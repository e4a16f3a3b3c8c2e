// Ranks of a chain, or of several lanes, by hand, over loopback links and a tiny model: what the
// tests of RankStage share. Where every stage has one replica a rank's number is its stage's.
#pragma once

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/convert.h"
#include "actors/rank_stage.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {

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

inline graph::Plan make_chain_plan(const std::string& path, int32_t num_stages, int32_t layers) {
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
  std::vector<std::unique_ptr<RankStage>> stages;  // by rank
  std::vector<TokenId> tokens;
  std::map<uint64_t, std::vector<TokenId>> tokens_of;  // by request
  std::map<uint64_t, Answer<Ok>> ends;                 // by request
  size_t num_messages = 0;
  rpc::LaneStats stats;  // the latest

  explicit Ranks(int32_t num_stages)
      : Ranks(std::vector<size_t>(static_cast<size_t>(num_stages), 1)) {}
  /// Of each stage so many replicas.
  explicit Ranks(const std::vector<size_t>& replicas) {
    const fakes::TinyShape shape;
    fakes::TinyLlama(shape, 5).write(folder / "tiny.gguf");
    plan =
        make_chain_plan(folder / "tiny.gguf", static_cast<int32_t>(replicas.size()), shape.layers);
    for (size_t i = 0; i < replicas.size(); ++i) plan.stages[i].devices.resize(replicas[i]);
    for (int32_t i = 0; i < num_ranks(plan); ++i)
      stages.push_back(std::make_unique<RankStage>(
          hub, std::make_shared<transport::Waiter>(transport::WaiterOptions{}),
          std::make_shared<StepTrace>(), std::make_shared<Beat>(), steady_clock()));
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
  Answer<Ok> connect(int32_t rank) {
    const RankId id(static_cast<uint32_t>(rank));
    const auto count = static_cast<uint32_t>(plan.stages.size());
    const auto out = static_cast<uint32_t>(place_of(plan, id).stage.value);
    Answer<Ok> answer;
    ConnectCommand command{.params = {}, .reply = answer.reply()};
    for (const graph::LaneId lane : lanes_of(plan, id)) {
      const auto link = [&](uint32_t edge) { return link_of(plan, lane, EdgeId(edge)).value; };
      command.params.links.push_back({.edge = link(out), .secret = 7, .incarnation = 1});
      command.params.accept.push_back(
          {.edge = link((out + count - 1) % count), .secret = 7, .incarnation = 1});
    }
    stages[static_cast<size_t>(rank)]->connect(std::move(command));
    return answer;
  }
  RankStage& first_of(uint8_t lane) {
    return *stages[rank_at(plan, graph::LaneId(lane), StageIndex(0)).value];
  }
  /// Attaches a client to each lane; what their requests come to is kept.
  void attach() {
    for (uint8_t lane = 0; lane < num_lanes(plan); ++lane)
      BOOST_REQUIRE(attach(lane, first_of(lane)).ok());
  }
  Answer<Ok> attach(uint8_t lane, RankStage& rank) {
    Answer<Ok> answer;
    rank.attach({.client = client_of(lane),
                 .lane = graph::LaneId(lane),
                 .sink =
                     [this](rpc::LaneResults results) {
                       ++num_messages;
                       stats = results.stats;
                       for (const auto& result : results.tokens) {
                         tokens.push_back(result.token);
                         tokens_of[result.request_id].push_back(result.token);
                       }
                       for (const auto& end : results.ends) *ends[end.request_id].held = end.how;
                       return ok_status();
                     },
                 .reply = answer.reply()});
    return answer;
  }
  static uint64_t client_of(uint8_t lane) { return uint64_t{lane} + 1; }
  /// The request's end, or why it was not even taken in.
  Answer<Ok> submit(int32_t stage, uint64_t id, int32_t max_new, std::string full_path = "",
                    Duration timeout = Duration(0)) {
    return submit(*stages[static_cast<size_t>(stage)], 0, id, max_new, std::move(full_path),
                  timeout);
  }
  Answer<Ok> submit_on(uint8_t lane, uint64_t id, int32_t max_new) {
    return submit(first_of(lane), lane, id, max_new, "", Duration(0));
  }
  Answer<Ok> submit(RankStage& rank, uint8_t lane, uint64_t id, int32_t max_new,
                    std::string full_path, Duration timeout) {
    const Answer<Ok> answer = ends[id] = {};
    SubmitCommand command{.client = client_of(lane), .requests = {{}}, .reply = {}};
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
    rank.submit(std::move(command));
    return answer;
  }
  template <typename T>
  static Answer<T> answer_to(rpc::Reply<T>& reply) {
    Answer<T> answer;
    reply = answer.reply();
    return answer;
  }
  template <typename Command>
  auto tell(int32_t stage, void (RankStage::*method)(Command), Command command = {}) {
    auto answer = answer_to(command.reply);
    (stages[static_cast<size_t>(stage)].get()->*method)(std::move(command));
    return answer;
  }
  Answer<Ok> shutdown(int32_t stage) { return tell(stage, &RankStage::shutdown); }
  Answer<Ok> watch(int32_t stage) { return tell(stage, &RankStage::watch); }
  Answer<Ok> watch_links(int32_t stage) {
    return tell(stage, &RankStage::watch, {.of_links = true, .reply = {}});
  }

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
    const TimePoint deadline = steady_clock().now() + std::chrono::seconds(20);
    while (!condition()) {
      BOOST_REQUIRE((steady_clock().now() < deadline));
      for (const auto& stage : stages) {
        stage->wake();
        if (stage->ticking()) stage->tick();
      }
    }
  }
};

/// The tokens of a request whose chain nobody disturbs.
inline std::vector<TokenId> calm(int32_t max_new) {
  Ranks chain(3);
  chain.open();
  const Answer<Ok> end = chain.submit(0, 7, max_new);
  chain.tick_until([&] { return end.come(); });
  return chain.tokens;
}

}  // namespace chainpump::actors
