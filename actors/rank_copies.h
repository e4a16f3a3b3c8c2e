// What a rank copies to others that are to take its place, or takes in as one of those: over links
// of their own beside those of its lanes. A rank that gives its place to one other has one copy; of
// a deployment that changes to another plan each rank may copy to several, some layers and lanes to
// each, and take in from several. Copies are of one move at a time: what is asked for of another
// ends what was before. What is taken in is held when the last part has come. A copy that fails is
// nobody's end: who asked for it is told, and the rank goes on. Thread rule: one thread, the
// rank's.
#pragma once

#include <memory>
#include <vector>

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
  /// Of all that it copies. invalid_argument: the rank's lanes are at work.
  void finish(FinishCopyCommand command);

  /// A frame or a few; true if anything happened.
  bool step();
  /// What has arrived: a sender knows of that, and not when it is taken in.
  void take_arrived();
  /// Whether a link is being opened, which nothing may announce.
  bool connecting() const;

 private:
  struct Sink {
    uint32_t part = 0;
    std::vector<uint8_t> lanes;
    std::unique_ptr<KvSink> sink;
  };
  graph::EdgePlan edge(const rpc::KvCopy& copy) const;
  Status check(const rpc::KvCopy& copy) const;
  std::vector<uint8_t> lanes_of(const rpc::KvCopy& copy) const;
  bool step_source();
  bool step_sinks();
  void give_up_taking();
  void hold_what_came();

  const graph::Plan& plan_;
  const StageIndex stage_;
  RankLanes& lanes_;
  models::StageExecutor& executor_;
  transport::Waiter& waiter_;
  std::vector<uint8_t> served_;  // lanes
  uint32_t copying_ = 0;         // of which move
  std::vector<std::unique_ptr<KvSource>> sources_;
  size_t num_begun_ = 0;  // of them, that have broken off included
  size_t turn_ = 0;       // of whom the next frame is
  uint32_t taking_ = 0;
  uint32_t num_parts_ = 0;   // that are to come
  bool holds_them_ = false;  // they have
  std::vector<Sink> sinks_;
};

}  // namespace chainpump::actors
