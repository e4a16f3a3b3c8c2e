// The ranks of a deployment over several nodes: one agent on each, of which one may be this
// machine's, in the service's folder. A rank is started on its home,
// or on the first other node of its stage that is there and has room (graph/placement.h); where
// none is, spawn() says `overloaded`, which means later.
//
// Nodes come and go (actors/membership.h); the agent of each that has joined is connected to,
// within half a second or when it is first needed. One that was lost is taken for gone with all its
// ranks: when it is there again, whatever still runs on it is ended first, so that no number is
// ever two processes, and nothing that was replaced goes on.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "actors/rank_host.h"
#include "actors/remote_host.h"
#include "graph/plan.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

/// Where each process listens, and on which node: for those who are told of lanes. Any thread.
class AddressBook {
 public:
  struct Entry {
    std::string socket;
    std::string node;  // empty: this machine
  };
  void set(RankId process, Entry entry) {
    const std::lock_guard lock(mutex_);
    entries_[process] = std::move(entry);
  }
  Entry of(RankId process) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(process);
    return found == entries_.end() ? Entry() : found->second;
  }

 private:
  mutable std::mutex mutex_;
  std::map<RankId, Entry> entries_;
};

struct ClusterHostOptions {
  std::string folder;  // of the service: this machine's agent, and who has joined
  graph::Plan plan;
  std::string own_node;  // this machine's name; empty: it has no agent
  uint64_t term = 0;     // as AgentLine
  std::shared_ptr<const transport::rpc::Credentials> credentials;
  std::vector<int> busy_cores;  // as make_remote_host()
  std::shared_ptr<AddressBook> addresses;
};

/// As make_remote_host() where this machine's agent is concerned; `own_loss` is what its end means.
Result<std::unique_ptr<RankHost>> make_cluster_host(ClusterHostOptions options,
                                                    RankHost::OnExit on_exit, AgentLoss own_loss);

}  // namespace chainpump::actors
