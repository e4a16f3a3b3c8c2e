// Makes a rank's two link ends as the plan says: over UCX to other processes, or loopback inside
// this one. One thread, the rank's; the hub is shared by the ranks of one process.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/result.h"
#include "graph/plan.h"
#include "transport/link.h"
#include "transport/loopback.h"
#include "transport/rpc/control_types.h"
#include "transport/ucx/ucx_context.h"
#include "transport/ucx/ucx_listener.h"

namespace chainpump::actors {

/// Where the ends of loopback links meet, by edge and incarnation: whoever comes first makes the
/// pair, and what is left of older ones goes. Any thread.
class LoopbackHub {
 public:
  /// `of_one_rank`: no other rank has this hub, so only a rank's links to itself are loopbacks.
  explicit LoopbackHub(bool of_one_rank = false) : of_one_rank_(of_one_rank) {}
  bool of_one_rank() const { return of_one_rank_; }
  std::unique_ptr<transport::SendLink> take_sender(const transport::LinkOptions& options);
  std::unique_ptr<transport::ReceiveLink> take_receiver(const transport::LinkOptions& options);

 private:
  transport::LinkPair& pair_for(const transport::LinkOptions& options);
  void forget_if_taken(const transport::LinkOptions& options);

  const bool of_one_rank_;
  std::mutex mutex_;
  std::map<std::pair<EdgeId, LinkIncarnation>, transport::LinkPair> waiting_;
};

/// A plan's edge as a link's options; `checksum: auto` is on where bytes leave the machine's
/// memory.
transport::LinkOptions link_options(const graph::EdgePlan& edge, PlanEpoch epoch, uint64_t secret,
                                    uint32_t incarnation);

class RankLinks {
 public:
  /// The fault outlives the links.
  RankLinks(std::shared_ptr<LoopbackHub> hub, transport::ArmedFault* fault)
      : hub_(std::move(hub)), fault_(fault) {}

  /// Prepares for links of this edge and listens for it at `address` if it comes from another
  /// process. Returns where senders connect to ("" and 0: nowhere, it is a loopback).
  Result<std::pair<std::string, uint16_t>> listen(const graph::EdgePlan& input,
                                                  const graph::EdgePlan& output,
                                                  const std::string& address);
  /// From listen() on it is open; while it is shut nobody can connect. Returns the port, as
  /// listen().
  Result<uint16_t> open();
  void shut();
  Result<std::unique_ptr<transport::ReceiveLink>> accept(const graph::EdgePlan& edge,
                                                         PlanEpoch epoch,
                                                         const transport::rpc::LinkAccept& from);
  /// To be called once links are open: a peer that the network has lost is missed from then on.
  void watch_network() const;
  Result<std::unique_ptr<transport::SendLink>> connect(const graph::EdgePlan& edge, PlanEpoch epoch,
                                                       const transport::rpc::LinkTarget& to);

  // Of links for copies (actors/rank_copies.h), which go over TCP, whatever the lanes' do, since
  // the other rank's plan may be another; within one process they are loopbacks. After listen().
  /// Opens a listener for them, if there is none. Returns as listen().
  Result<std::pair<std::string, uint16_t>> listen_for_copies();
  Result<std::unique_ptr<transport::ReceiveLink>> accept_copy(
      graph::EdgePlan edge, PlanEpoch epoch, const transport::rpc::LinkAccept& from);
  Result<std::unique_ptr<transport::SendLink>> connect_copy(graph::EdgePlan edge, PlanEpoch epoch,
                                                            const transport::rpc::LinkTarget& to);

 private:
  Status make_copies_context();
  std::shared_ptr<LoopbackHub> hub_;
  transport::ArmedFault* const fault_;
  std::shared_ptr<transport::UcxContext> context_;
  std::unique_ptr<transport::UcxListener> listener_;
  bool is_on_network_ = false;
  std::string address_;  // that it listens at
  bool is_tcp_ = false;
  std::shared_ptr<transport::UcxContext> copies_context_;  // the lanes', where that is TCP
  std::unique_ptr<transport::UcxListener> copies_listener_;
};

}  // namespace chainpump::actors
