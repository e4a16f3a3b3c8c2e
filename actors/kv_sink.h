// Takes in what another rank sends (actors/kv_source.h): pieces go into the blocks that they name,
// and when the end has come it knows whose they are. The rank holds nothing before all copies to it
// have come (actors/rank_copies.h), so that one that breaks off leaves no trace but bytes in blocks
// that stand in no table.
//
// Thread rule: one thread, the rank's.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "graph/kv_frame.h"
#include "models/stage_executor.h"
#include "transport/link.h"
#include "transport/waiter.h"

namespace chainpump::actors {

struct KvSinkOptions {
  graph::KvFrameLimits limits;
  std::function<KvBlockId(uint8_t lane)> first_block;  // of the lane among the executor's
};

class KvSink {
 public:
  /// Executor and waiter outlive it.
  KvSink(KvSinkOptions options, models::StageExecutor& executor,
         std::unique_ptr<transport::ReceiveLink> link, transport::Waiter& waiter);
  ~KvSink();
  KvSink(const KvSink&) = delete;
  KvSink& operator=(const KvSink&) = delete;

  /// A few frames at most; true if anything happened. An error: the copy is no good, or has broken
  /// off; nothing is held of it.
  Result<bool> step();
  /// All has come.
  bool done() const { return done_; }
  /// Who holds it, then, in the executor's blocks.
  const std::vector<graph::StageHoldings::Held>& held() const { return held_; }
  bool connecting() const { return link_->state() == transport::LinkState::connecting; }

 private:
  Status take(const graph::KvFrame& frame);
  Status take(const graph::KvPiece& piece);
  Status take(const graph::KvEnd& end);

  const KvSinkOptions options_;
  models::StageExecutor& executor_;
  std::unique_ptr<transport::ReceiveLink> link_;
  transport::Waiter& waiter_;
  std::vector<graph::StageHoldings::Held> held_;
  uint64_t num_pieces_ = 0;
  bool done_ = false;
};

}  // namespace chainpump::actors
