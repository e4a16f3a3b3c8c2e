#include "actors/cluster_host.h"

#include <algorithm>
#include <atomic>

#include "actors/service_folder.h"
#include "transport/rpc/service_file.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr Duration kLookEvery = std::chrono::milliseconds(500);
constexpr Duration kTryAgainAfter = std::chrono::seconds(10);  // one that nobody has asked for

/// One node as the coordinator has it; null or lost: it is connected to when it is there again.
struct NodeLine {
  std::unique_ptr<RankHost> host;
  std::shared_ptr<std::atomic<bool>> is_lost;
  TimePoint not_before = {};  // by look(): trying takes seconds where there is no way there
  bool is_there() const { return host != nullptr && !*is_lost; }
};

class ClusterHost final : public RankHost {
 public:
  ClusterHost(ClusterHostOptions options, OnExit on_exit, AgentLoss own_loss)
      : options_(std::move(options)), on_exit_(std::move(on_exit)), own_loss_(own_loss) {}

  /// This machine's agent must be there; the others' ranks are found where they are.
  Result<std::vector<Found>> find() override {
    std::vector<std::string> nodes;
    if (!options_.own_node.empty()) nodes.push_back(options_.own_node);
    for (const graph::StagePlan& stage : options_.plan.stages)
      for (const std::string& node : stage.nodes)
        if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);
    std::vector<Found> all;
    for (const std::string& node : nodes) {
      const Status connected = connect(node, true);
      if (!connected.ok() && node == options_.own_node) return connected.error();
      if (!connected.ok()) continue;  // gone, with its ranks, as far as anybody knows
      ASSIGN_OR_RETURN(std::vector<Found> found, lines_[node].host->find());
      for (Found& rank : found) {
        where_[rank.rank] = node;
        all.push_back(std::move(rank));
      }
    }
    return all;
  }

  Result<std::shared_ptr<RankPort>> spawn(RankId rank) override {
    std::string why;
    for (const std::string& node : nodes_of(options_.plan, ProcessId(rank.value))) {
      Result<std::shared_ptr<RankPort>> port = spawn_on(node, rank);
      if (port.ok() || node == options_.own_node) return port;
      why += fmt::format("{}node '{}': {}", why.empty() ? "" : "; ", node, port.error().message);
    }
    return make_error(ErrorCode::overloaded, "{}", why);
  }

  /// Whatever still runs on a node that has joined anew was taken for gone: it is ended.
  std::optional<Duration> look() override {
    const auto joined = rpc::read_nodes_file(nodes_file(options_.folder));
    if (!joined.ok()) return kLookEvery;
    for (const rpc::NodeInfo& node : *joined) {
      NodeLine& line = lines_[node.name];
      const TimePoint now = steady_clock().now();
      if (node.name == options_.own_node || line.is_there() || now < line.not_before) continue;
      if (connect(node.name, false).ok()) continue;
      line.not_before = steady_clock().now() + kTryAgainAfter;
    }
    return kLookEvery;
  }

  void kill(RankId rank) override {
    const auto found = where_.find(rank);
    if (found != where_.end() && lines_[found->second].host) lines_[found->second].host->kill(rank);
  }

 private:
  Result<std::shared_ptr<RankPort>> spawn_on(const std::string& node, RankId rank) {
    where_.erase(rank);
    RETURN_IF_ERROR(connect(node, false));
    RETURN_IF_ERROR(check_room(node, rank));
    ASSIGN_OR_RETURN(std::shared_ptr<RankPort> port, lines_[node].host->spawn(rank));
    where_[rank] = node;
    return port;
  }

  /// The plan has seen to those that are at home.
  Status check_room(const std::string& node, RankId rank) {
    if (nodes_of(options_.plan, ProcessId(rank.value)).front() == node) return ok_status();
    int64_t needed = bytes_of(options_.plan, ProcessId(rank.value));
    for (uint32_t i = 0; i < static_cast<uint32_t>(num_processes(options_.plan)); ++i) {
      const bool is_at_home = nodes_of(options_.plan, ProcessId(i)).front() == node;
      const auto found = where_.find(RankId(i));
      if (i != rank.value && (is_at_home || (found != where_.end() && found->second == node)))
        needed += bytes_of(options_.plan, ProcessId(i));
    }
    const int64_t there = memory_bytes_[node];
    if (needed <= there || node == options_.own_node) return ok_status();
    return make_error(ErrorCode::no_room, "{} bytes needed beside what is its own, {} there",
                      needed, there);
  }

  Status connect(const std::string& node, bool find_living) {
    NodeLine& line = lines_[node];
    if (line.is_there()) return ok_status();
    line = {};
    AgentLine to;
    AgentLoss on_loss = AgentLoss::ends_ranks;
    if (node == options_.own_node) {
      to = {.address = agent_socket(options_.folder), .how_lost = "its node agent died"};
      on_loss = own_loss_;
    } else {
      ASSIGN_OR_RETURN(const rpc::NodeInfo info, find_node(node));
      memory_bytes_[node] = info.memory_bytes;
      to = {.address = info.agent,
            .how_lost = fmt::format("its node '{}' was lost", node),
            .credentials = options_.credentials,
            .node = node};
    }
    to.term = options_.term;
    to.on_address = [book = options_.addresses, node = to.node](RankId rank,
                                                                const std::string& socket) {
      book->set(rank, {socket, node});
    };
    line.is_lost = std::make_shared<std::atomic<bool>>(false);
    to.on_lost = [is_lost = line.is_lost] { *is_lost = true; };
    ASSIGN_OR_RETURN(line.host,
                     make_remote_host(to, on_exit_, on_loss, options_.busy_cores, find_living));
    return ok_status();
  }

  Result<rpc::NodeInfo> find_node(const std::string& name) const {
    ASSIGN_OR_RETURN(const std::vector<rpc::NodeInfo> joined,
                     rpc::read_nodes_file(nodes_file(options_.folder)));
    for (const rpc::NodeInfo& node : joined)
      if (node.name == name) return node;
    return make_error(ErrorCode::disconnected, "it is away");
  }

  const ClusterHostOptions options_;
  const OnExit on_exit_;
  const AgentLoss own_loss_;
  std::map<RankId, std::string> where_;  // the node of each that runs, as far as is known
  std::map<std::string, int64_t> memory_bytes_;
  std::map<std::string, NodeLine> lines_;
};

}  // namespace

Result<std::unique_ptr<RankHost>> make_cluster_host(ClusterHostOptions options,
                                                    RankHost::OnExit on_exit, AgentLoss own_loss) {
  auto host = std::make_unique<ClusterHost>(std::move(options), std::move(on_exit), own_loss);
  return Result<std::unique_ptr<RankHost>>(std::move(host));
}

}  // namespace chainpump::actors
