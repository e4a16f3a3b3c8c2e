// Copies what a rank holds to another that is to take its place, over a link of their own, between
// the steps of its lanes: a frame at a time, so that no step waits for more than that.
//
//   state       what ends it                                    what is done
//   connecting  the link is open                                -
//   copying     a round over all held finds no full block that  full blocks are sent; copied is
//               the other lacks, or there were many rounds      answered
//   following   finish(), when the rank's lanes are cut         full blocks are sent
//   finishing   all blocks are sent, the partly filled, too     blocks, then who holds them, the
//                                                               end, and the link is closed
//   closing     the link has closed: all has come               finish is answered
//   over        -                                               nothing
//   any         the link has failed                             -> over; what is to be answered is,
//                                                               with the reason
//
// Thread rule: one thread, the rank's. Nothing of the rank's own work depends on it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "graph/kv_frame.h"
#include "graph/plan.h"
#include "models/kv_account.h"
#include "models/stage_executor.h"
#include "transport/link.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/reply.h"
#include "transport/waiter.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

struct KvSourceOptions {
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  std::vector<uint8_t> lanes = {};
  std::function<KvBlockId(uint8_t lane)> first_block;  // of the lane among the executor's
  std::function<void(int64_t done, int64_t total)> progress;
};

class KvSource {
 public:
  /// Executor and waiter outlive it.
  KvSource(KvSourceOptions options, models::StageExecutor& executor,
           std::unique_ptr<transport::SendLink> link, transport::Waiter& waiter,
           rpc::Reply<Ok> copied);
  ~KvSource();
  KvSource(const KvSource&) = delete;
  KvSource& operator=(const KvSource&) = delete;

  /// The rest, of a rank that does nothing more meanwhile.
  void finish(rpc::Reply<Ok> finished);
  /// At most one frame; true if anything happened.
  bool step();
  bool over() const { return state_ == State::over; }
  bool connecting() const { return state_ == State::connecting; }

 private:
  enum class State : uint8_t { connecting, copying, following, finishing, closing, over };
  struct Block {
    models::KvAccount::Version version;
    int32_t layer = 0;
    int64_t offset = 0;
  };

  void fail(const Error& why);
  bool find_block();
  bool is_copied(SequenceId id) const;
  bool at_round_end();
  bool send_one();
  void send_piece(std::unique_ptr<transport::SendSlot> slot);
  void send_sequences(std::unique_ptr<transport::SendSlot> slot);
  void send_end(std::unique_ptr<transport::SendSlot> slot);
  void send(std::unique_ptr<transport::SendSlot> slot, int64_t payload_bytes);
  graph::StageHoldings::Held in_lane(graph::StageHoldings::Held held) const;
  void report();

  const KvSourceOptions options_;
  models::StageExecutor& executor_;
  std::unique_ptr<transport::SendLink> link_;
  transport::Waiter& waiter_;
  rpc::Reply<Ok> copied_;
  rpc::Reply<Ok> finished_;
  State state_ = State::connecting;
  models::KvAccount account_;
  std::optional<Block> block_;  // being sent
  int num_rounds_ = 0;
  uint64_t num_pieces_ = 0;
  int64_t num_blocks_ = 0;                                       // sent
  int64_t bytes_per_block_ = 0;                                  // in the layers that are copied
  std::optional<std::vector<graph::StageHoldings::Held>> held_;  // since all blocks are sent
  size_t num_held_sent_ = 0;
  std::vector<std::byte> metadata_;
};

}  // namespace chainpump::actors
