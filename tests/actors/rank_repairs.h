// A chain of ranks with a tiny model, any of which is lost and replaced, or moved, as a coordinator
// would have it done.
#pragma once

#include "tests/actors/ranks.h"

namespace chainpump::actors {

struct Repair : Ranks {
  uint32_t epoch = 1;

  explicit Repair(const std::vector<size_t>& replicas) : Ranks(replicas) {
    plan.replay_log_bytes = 1 << 20;
  }

  Answer<rpc::StageHoldings> fence(size_t rank, uint8_t lane, uint32_t with_epoch) {
    Answer<rpc::StageHoldings> answer;
    stages[rank]->fence(
        {.lane = graph::LaneId(lane), .epoch = PlanEpoch(with_epoch), .reply = answer.reply()});
    return answer;
  }
  Answer<Ok> resume(uint8_t lane, uint32_t with_epoch, std::vector<rpc::StageHoldings> holdings) {
    Answer<Ok> answer;
    first_of(lane).resume({.lane = graph::LaneId(lane),
                           .epoch = PlanEpoch(with_epoch),
                           .stages = std::move(holdings),
                           .reply = answer.reply()});
    return answer;
  }
  Answer<Ok> connect_again(size_t rank, const std::vector<graph::LaneId>& lanes) {
    const auto count = static_cast<uint32_t>(plan.stages.size());
    const auto out =
        static_cast<uint32_t>(place_of(plan, RankId(static_cast<uint32_t>(rank))).stage.value);
    Answer<Ok> answer;
    ConnectCommand command{.params = {.epoch = epoch, .links = {}, .accept = {}},
                           .reply = answer.reply()};
    for (const graph::LaneId lane : lanes) {
      const auto link = [&](uint32_t edge) { return link_of(plan, lane, EdgeId(edge)).value; };
      command.params.links.push_back({.edge = link(out), .secret = 7, .incarnation = epoch});
      command.params.accept.push_back(
          {.edge = link((out + count - 1) % count), .secret = 7, .incarnation = epoch});
    }
    stages[rank]->connect(std::move(command));
    return answer;
  }
  void lose(size_t rank) {
    stages[rank] = std::make_unique<RankStage>(
        hub, std::make_shared<transport::Waiter>(transport::WaiterOptions{}),
        std::make_shared<StepTrace>(), std::make_shared<Beat>(), steady_clock());
  }
  /// Of the lanes that the rank served.
  void repair(size_t dead) {
    ++epoch;
    const std::vector<graph::LaneId> lanes = lanes_of(plan, RankId(static_cast<uint32_t>(dead)));
    std::map<uint8_t, std::vector<Answer<rpc::StageHoldings>>> fenced;
    for (const graph::LaneId lane : lanes)
      for (size_t s = 0; s < plan.stages.size(); ++s) {
        const size_t rank = rank_at(plan, lane, StageIndex(static_cast<int32_t>(s))).value;
        if (rank != dead) fenced[lane.value].push_back(fence(rank, lane.value, epoch));
      }
    BOOST_REQUIRE(load(static_cast<int32_t>(dead)).ok());
    tick_until([&] {
      for (const auto& [lane, answers] : fenced)
        for (const auto& answer : answers)
          if (!answer.come()) return false;
      return true;
    });
    std::vector<Answer<Ok>> opened;
    for (const graph::LaneId lane : lanes)
      for (size_t s = 0; s < plan.stages.size(); ++s)
        opened.push_back(
            connect_again(rank_at(plan, lane, StageIndex(static_cast<int32_t>(s))).value, {lane}));
    tick_until([&] {
      return std::all_of(opened.begin(), opened.end(), [](const auto& a) { return a.ok(); });
    });
    for (const graph::LaneId lane : lanes) {
      std::vector<rpc::StageHoldings> holdings;
      for (const auto& answer : fenced[lane.value]) {
        BOOST_REQUIRE(answer.ok());
        holdings.push_back(***answer.held);
      }
      BOOST_REQUIRE(resume(lane.value, epoch, std::move(holdings)).ok());
    }
  }
  void tick_all(int times) {
    for (int i = 0; i < times; ++i)
      for (const auto& stage : stages) {
        stage->wake();
        if (stage->ticking()) stage->tick();
      }
  }
};

}  // namespace chainpump::actors
