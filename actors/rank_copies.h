// What a rank copies to another that is to take its place, or takes in as that one: over a link of
// its own beside those of its lanes, with the plan's transport and checksums. One of each at most;
// what is asked for anew takes the place of what was before. A copy that fails is nobody's end: who
// asked for it is told, and the rank goes on. Thread rule: one thread, the rank's.
#pragma once

#include <memory>

#include "actors/commands.h"
#include "actors/kv_sink.h"
#include "actors/kv_source.h"
#include "actors/rank_lanes.h"

namespace chainpump::actors {

class RankCopies {
 public:
  /// All of them outlive it; they are of the rank, which listens.
  RankCopies(const graph::Plan& plan, RankId rank, RankLanes& lanes,
             models::StageExecutor& executor, transport::Waiter& waiter);

  /// Answers when whatever comes is awaited. invalid_argument: the rank holds something, or serves.
  void take_in(TakeInCommand command);
  void copy(CopyCommand command);
  /// invalid_argument: the rank's lanes are at work.
  void finish(FinishCopyCommand command);

  /// A frame or a few; true if anything happened.
  bool step();
  /// What has arrived: a sender knows of that, and not when it is taken in.
  void take_arrived();
  /// Whether a link is being opened, which nothing may announce.
  bool connecting() const;

 private:
  graph::EdgePlan edge() const;
  Status check(const rpc::KvCopy& copy) const;
  bool step_sink();

  const graph::Plan& plan_;
  const StageIndex stage_;
  RankLanes& lanes_;
  models::StageExecutor& executor_;
  transport::Waiter& waiter_;
  std::vector<uint8_t> served_;  // lanes
  std::unique_ptr<KvSource> source_;
  std::unique_ptr<KvSink> sink_;
};

}  // namespace chainpump::actors
