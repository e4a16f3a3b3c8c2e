#include "cli/cluster.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "actors/convert.h"
#include "actors/service_folder.h"
#include "cli/machine.h"
#include "cli/plan_nodes.h"
#include "cli/progress.h"
#include "models/weights/weight_store.h"
#include "transport/rpc/channel.h"
#include "transport/socket_address.h"

namespace chainpump::cli {

namespace rpc = transport::rpc;

Result<std::unique_ptr<Cluster>> Cluster::open(const ClusterOptions& options,
                                               const graph::Graph& graph,
                                               const std::string& folder) {
  if (options.certificates.empty())
    return make_error(ErrorCode::invalid_argument,
                      "--listen needs --certificates: nothing listens on a network without "
                      "(`chainpump cert init` and `issue` make them)");
  ASSIGN_OR_RETURN(auto credentials, rpc::Credentials::load(options.certificates));
  const rpc::Identity& own = credentials->identity();
  if (own.role != rpc::Role::coordinator)
    return make_error(ErrorCode::invalid_argument,
                      "{}: the certificate is of {}; `serve` needs one with --role coordinator",
                      options.certificates, to_string(own));
  ASSIGN_OR_RETURN(UniqueFd listener, rpc::listen_network(options.listen));
  const std::string listens_at = rpc::own_address(listener);
  std::string data_address;
  if (!options.data_network.empty()) {
    ASSIGN_OR_RETURN(data_address, transport::address_on(options.data_network));
  } else if (rpc::is_loopback_address(listens_at)) {
    data_address = "127.0.0.1";
  }
  std::unique_ptr<Cluster> made(new Cluster(options, own.name, data_address));
  if (!options.store.address.empty()) {
    ASSIGN_OR_RETURN(made->shared_plan_, SharedPlan::open(options.store, graph.name));
    ASSIGN_OR_RETURN(made->plan_, made->shared_plan_->find());
  }
  ASSIGN_OR_RETURN(made->members_, actors::Membership::create(
                                       std::move(listener), credentials, actors::nodes_file(folder),
                                       [](const std::string& what) {
                                         std::fprintf(stderr, "chainpump: %s\n", what.c_str());
                                       }));
  const std::string host = listens_at.substr(0, listens_at.rfind(':'));
  ASSIGN_OR_RETURN(UniqueFd weights_listener, rpc::listen_network(host + ":0"));
  ASSIGN_OR_RETURN(made->weights_,
                   actors::WeightsSource::start(std::move(weights_listener), credentials,
                                                {.store = weights_folder()}));
  std::fprintf(stderr, "chainpump: nodes may join at %s\n", listens_at.c_str());
  return made;
}

std::vector<graph::Node> Cluster::nodes_of(const std::vector<rpc::NodeInfo>& joined) const {
  std::vector<graph::Node> nodes;
  if (!has_store()) nodes.push_back({.name = name_, .machine = machine_profile()});
  for (const rpc::NodeInfo& info : joined) nodes.push_back(node_of(info));
  return nodes;
}

Result<bool> Cluster::wait_for(const graph::Graph& graph, int interrupt) const {
  if (plan_) return true;
  std::vector<std::string> missing;
  size_t num_there = 0;
  std::vector<graph::Node> own;
  if (!has_store()) own.push_back({.name = name_});
  // Without a machine of its own there must be another.
  const auto least = static_cast<size_t>(std::max(options_.num_nodes, has_store() ? 1 : 0));
  const auto enough = [&](const std::vector<rpc::NodeInfo>& joined) {
    std::vector<graph::Node> there = own;
    for (const rpc::NodeInfo& info : joined) there.push_back({info.name, info.labels});
    missing = missing_nodes(graph, there);
    num_there = joined.size();
    return missing.empty() && num_there >= least;
  };
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(options_.wait_s);
  if (members_->wait(enough, deadline, interrupt)) return true;
  if (steady_clock().now() < deadline) return false;
  if (missing.empty())
    return make_error(ErrorCode::deadline_exceeded,
                      "{} of {} nodes have joined within {} s (--wait-nodes)", num_there, least,
                      options_.wait_s);
  return make_error(ErrorCode::deadline_exceeded,
                    "no node named or labelled {} has joined within {} s (--wait-nodes)",
                    fmt::join(missing, ", none "), options_.wait_s);
}

Result<Prepared> Cluster::prepare(const DeployOptions& options) const {
  if (plan_) {
    ASSIGN_OR_RETURN(Prepared prepared, cli::prepare(options, *plan_));
    RETURN_IF_ERROR(offer_weights(prepared));
    return prepared;
  }
  const std::vector<rpc::NodeInfo> joined = members_->nodes();
  if (!has_store() && std::any_of(joined.begin(), joined.end(),
                                  [&](const rpc::NodeInfo& info) { return info.name == name_; }))
    return make_error(ErrorCode::invalid_argument, "a node has this machine's name, '{}'", name_);
  ASSIGN_OR_RETURN(Prepared prepared, cli::prepare(options, nodes_of(joined)));
  RETURN_IF_ERROR(check_links(prepared.plan, joined));
  RETURN_IF_ERROR(offer_weights(prepared));
  return prepared;
}

/// So that nodes which lack the model file can fetch it here. It is read once for that, as a whole,
/// and then not again until it changes.
Status Cluster::offer_weights(Prepared& prepared) const {
  graph::Plan& plan = prepared.plan;
  const bool are_others =
      std::any_of(plan.stages.begin(), plan.stages.end(), [&](const graph::StagePlan& stage) {
        return std::any_of(stage.nodes.begin(), stage.nodes.end(),
                           [&](const std::string& node) { return node != name_; });
      });
  if (!are_others) return ok_status();
  const std::filesystem::path path = std::filesystem::absolute(prepared.model.path());
  ASSIGN_OR_RETURN(
      const models::Manifest manifest,
      models::manifest_of(path, weights_folder(), byte_progress("reading the model file, once")));
  end_progress();
  const graph::ModelIdentity own = identity_of(manifest);
  if (plan.model == graph::ModelIdentity{}) plan.model = own;
  if (plan.model != own)
    return make_error(ErrorCode::invalid_argument,
                      "{} is another model than the one that this deployment was planned with, or "
                      "another version of it",
                      path.string());
  weights_->set_model(path, own, encode(manifest));
  return ok_status();
}

Status Cluster::check_links(const graph::Plan& plan,
                            const std::vector<rpc::NodeInfo>& joined) const {
  if (!spans_nodes(plan)) return ok_status();
  for (const graph::EdgePlan& edge : plan.edges)
    if (edge.transport == graph::TransportKind::shared_memory)
      return make_error(ErrorCode::invalid_argument,
                        "links.transport: shared_memory does not reach from one node to another");
  std::map<std::string, std::string> addresses = {{name_, data_address_}};
  for (const rpc::NodeInfo& info : joined) addresses[info.name] = info.data_address;
  std::map<std::string, std::string> used;
  for (const graph::StagePlan& stage : plan.stages)
    for (const std::string& node : stage.nodes) used[node] = addresses[node];
  const auto is_loopback = [](const std::string& address) {
    return rpc::is_loopback_address(address + ":0");
  };
  const bool all_loopback = std::all_of(
      used.begin(), used.end(), [&](const auto& entry) { return is_loopback(entry.second); });
  for (const auto& [node, address] : used)
    if (address.empty() || (!all_loopback && is_loopback(address)))
      return make_error(ErrorCode::invalid_argument,
                        "node '{}' names no network that is trusted with links to other nodes: "
                        "start it with --data-network",
                        node);
  return ok_status();
}

Status Cluster::share(Prepared& prepared) const {
  if (!has_store()) return ok_status();
  ASSIGN_OR_RETURN(const rpc::ServiceSpec agreed,
                   shared_plan_->agree({.plan = actors::to_wire(prepared.plan),
                                        .isa = prepared.runtime.isa,
                                        .spin_between_ops = prepared.runtime.spin_between_ops}));
  return adopt(agreed, prepared);
}

void Cluster::add_to(actors::ServiceOptions& options) const {
  if (has_store()) {
    options.store = shared_plan_->store();
  } else {
    options.node = name_;
  }
  options.certificates = options_.certificates;
  options.data_address = data_address_;
  options.weights = {.name = name_, .is_coordinator = true, .address = weights_->address()};
}

}  // namespace chainpump::cli
