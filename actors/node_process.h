// The program of a node, `chainpump node`: an agent that makes this machine part of a cluster. It
// joins, and whenever it has lost the cluster it goes on trying to, since `serve` may be started
// anew; its ranks live on meanwhile, for half a minute. With this process they end. Where several
// `serve`s stand in for each other it joins them all, and which of them leads is theirs to know.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "graph/cost_model.h"

namespace chainpump::actors {

struct NodeOptions {
  std::vector<std::string> join;  // HOST:PORT, of each `serve`
  std::string certificates;       // folder, of the role node: its name is this machine's
  std::string listen;             // numeric address without a port; empty: the one that leads there
  std::string data_network;       // interface or network; empty: none but the loopback
  std::vector<std::string> labels;
  std::string models;  // as RankTerms
  std::string cache_folder;
  std::string weights;  // likewise
  graph::MachineProfile machine;
};

/// Until SIGTERM or SIGINT: 0. invalid_argument: the options make no sense here, or the cluster
/// refuses this machine for good.
Status run_node(const NodeOptions& options);

}  // namespace chainpump::actors
