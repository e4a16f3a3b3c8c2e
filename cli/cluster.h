// The cluster's side of `chainpump serve --listen`: takes nodes in, waits for those that the graph
// file names, and plans over all that are there. One thread, the command's.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/membership.h"
#include "actors/service.h"
#include "actors/weights_source.h"
#include "base/result.h"
#include "cli/deploy.h"
#include "cli/shared_plan.h"
#include "graph/graph.h"
#include "graph/placement.h"

namespace chainpump::cli {

struct ClusterOptions {
  std::string listen;        // ADDRESS:PORT where nodes join; empty: there is no cluster
  std::string certificates;  // folder, of the role coordinator
  std::string data_network;  // of links, as `node`'s
  int32_t num_nodes = 0;     // to wait for, beside those that the graph file names
  int32_t wait_s = 60;
  transport::rpc::StoreSpec store = {};  // that several `serve`s share; an empty address: none
};

class Cluster {
 public:
  /// Nodes may join from now on; they are written down in the service's `folder`. invalid_argument:
  /// without certificates nobody listens on a network; and as Credentials::load().
  static Result<std::unique_ptr<Cluster>> open(const ClusterOptions& options,
                                               const graph::Graph& graph,
                                               const std::string& folder);

  /// Until there is a node for each of the graph's `nodes`, and the number asked for; false if
  /// `interrupt` can be read before that. deadline_exceeded says who is missing. At once where
  /// others have planned.
  Result<bool> wait_for(const graph::Graph& graph, int interrupt) const;

  /// As prepare(), over this machine and the nodes that are there, or with a store over the nodes
  /// alone; or as others have planned. invalid_argument: a node that would have links to others
  /// names no network for them.
  Result<Prepared> prepare(const DeployOptions& options) const;

  /// With a store: `prepared` becomes what all that share it go by.
  Status share(Prepared& prepared) const;

  void add_to(actors::ServiceOptions& options) const;

 private:
  Cluster(ClusterOptions options, std::string name, std::string data_address)
      : options_(std::move(options)),
        name_(std::move(name)),
        data_address_(std::move(data_address)) {}
  bool has_store() const { return shared_plan_ != nullptr; }
  Status offer_weights(Prepared& prepared) const;
  std::vector<graph::Node> nodes_of(const std::vector<transport::rpc::NodeInfo>& joined) const;
  Status check_links(const graph::Plan& plan,
                     const std::vector<transport::rpc::NodeInfo>& joined) const;

  const ClusterOptions options_;
  const std::string name_;                           // this machine's, as its certificate says
  const std::string data_address_;                   // empty: it has none
  std::unique_ptr<SharedPlan> shared_plan_;          // null: there is no store
  std::optional<transport::rpc::ServiceSpec> plan_;  // of others, found there
  std::unique_ptr<actors::Membership> members_;
  std::unique_ptr<actors::WeightsSource> weights_;
};

}  // namespace chainpump::cli
