// The plan: an immutable assignment of a model's layers to stages, devices and links, made from a
// graph file, a model profile and a machine profile before any weight is read. Plain data; what
// ranks are told (schemas/plan.capnp carries it).
//
// Lanes. Each lane is a chain of its own through all stages, with its own links, slots, credits,
// sequencer and share of KV blocks. There are as many as the stage with the most replicas has, and
// every other stage's count divides that, so that its ranks serve equally many:
//   replica j of a stage with r ranks serves the lanes l with l mod r == j, as their (l / r)th
// What the plan says of an edge or of the KV holds for each lane: a rank in several lanes has so
// many times the blocks and slots, and no lane can spend another's. Its weights it has once.
//   ranks are numbered through replica 0 of every stage in chain order, then replica 1 of each
//   stage that has one, and so on; a lane's link of an edge = lane * edges + edge
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/ids.h"

namespace chainpump::graph {

enum class TransportKind : uint8_t { automatic, tcp, shared_memory, loopback };
enum class SpinPolicy : uint8_t { automatic, always, never };  // automatic: brief spin, then sleep
enum class ChecksumPolicy : uint8_t { automatic, on, off };    // automatic: payload CRC on TCP

using LaneId = Id<struct LaneTag, uint8_t>;  // one path of ranks through all stages, from 0

struct DevicePlan {
  std::string kind = "cpu";  // "cpu"; "cuda" later
  std::vector<int> cores;    // logical CPUs; threads are pinned to them in order
  std::string node = {};     // its home, of a cluster; empty: there is one machine
  bool operator==(const DevicePlan&) const = default;
};

struct StagePlan {
  StageIndex index;
  std::string name;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  bool has_embedding = false;
  bool has_head = false;
  std::vector<DevicePlan> devices = {DevicePlan{}};  // of its ranks, by replica
  int32_t standbys = 0;  // processes beside them that have loaded the same; with one replica only
  std::vector<std::string> nodes = {};  // that its processes may run on (graph/placement.h)
  // Of each rank:
  int32_t num_threads = 1;
  int64_t weight_bytes = 0;        // in the file; what it may touch
  int64_t kv_bytes = 0;            // its whole block pool, all its lanes' shares
  int64_t slot_bytes = 0;          // all receive and send slots, of all its lanes
  double predicted_decode_s = 0;   // one token through this stage
  double predicted_prefill_s = 0;  // one prefill chunk; the largest microbatch if there is none
  bool operator==(const StagePlan&) const = default;
};

/// A link from one stage to the next, or the return edge from the last to the first; of each lane.
struct EdgePlan {
  EdgeId id;
  StageIndex from;
  StageIndex to;
  bool is_return = false;
  TransportKind transport = TransportKind::automatic;
  SpinPolicy spin = SpinPolicy::automatic;
  ChecksumPolicy checksum = ChecksumPolicy::automatic;
  int32_t credits = 0;
  int64_t slot_payload_bytes = 0;
  int64_t slot_metadata_bytes = 0;
  bool operator==(const EdgePlan&) const = default;
};

struct KvPlan {
  DType type = DType::f32;
  int32_t block_tokens = 0;
  int32_t num_blocks = 0;  // of each lane, the same on every stage
  bool operator==(const KvPlan&) const = default;
};

/// A machine that may run ranks of the plan.
struct NodePlan {
  std::string name;  // empty: the only one there is
  int32_t num_cores = 1;
  bool operator==(const NodePlan&) const = default;
};

/// What tells a model file from every other, wherever it lies (models/weights/manifest.h).
struct ModelIdentity {
  uint64_t bytes = 0;  // of the file; 0: nobody has looked
  uint64_t fingerprint = 0;
  uint64_t content_low = 0;  // hash of its manifest
  uint64_t content_high = 0;
  bool operator==(const ModelIdentity&) const = default;
};

struct Plan {
  PlanEpoch epoch{1};
  std::string model_path;
  ModelIdentity model = {};
  int32_t context_tokens = 0;        // longest sequence admitted
  int32_t prefill_chunk_tokens = 0;  // 0: the scheduler sizes chunks by the time they take
  int32_t max_microbatch_tokens = 0;
  int32_t max_sequences = 0;     // running at once, on each lane
  int32_t max_queued = 1024;     // sequences waiting, for each lane
  int32_t max_microbatches = 0;  // in flight, on each lane
  // What prefill may add to the time between two tokens, where the scheduler sizes chunks.
  Duration decode_delay_max = std::chrono::milliseconds(100);
  bool prefix_cache = true;
  int64_t replay_log_bytes = 0;  // that each rank may keep of what it sent on, for repairs
  // Ends of ranks that are repaired within the window; one more ends the deployment. 0: any does.
  int32_t failover_restarts = 5;
  Duration failover_window = std::chrono::seconds(60);
  bool failover_evicts_slow = false;  // ranks that have become slow (graph/slow_watch.h)
  bool exact_activations = false;     // `activations: f32`
  KvPlan kv;
  std::vector<StagePlan> stages;     // in chain order
  std::vector<EdgePlan> edges;       // edges[i] from stage i to i + 1; the last is the return edge
  std::vector<NodePlan> nodes = {};  // that were planned over
  bool operator==(const Plan&) const = default;
};

int32_t num_lanes(const Plan& plan);
int32_t num_ranks(const Plan& plan);
/// Those of all ranks, and then the standbys, stage by stage.
int32_t num_processes(const Plan& plan);
/// Where a process may run, its home first; empty: there is one machine.
std::vector<std::string> nodes_of(const Plan& plan, ProcessId process);
/// What a process of this number needs of its machine's memory.
int64_t bytes_of(const Plan& plan, ProcessId process);
/// Whether its ranks are on more than one node.
bool spans_nodes(const Plan& plan);
/// Of all ranks whose home is that node; standbys wait.
int32_t num_compute_threads(const Plan& plan, const std::string& node);
/// Of the stage of this index.
int32_t num_replicas(const Plan& plan, StageIndex stage);
/// How many lanes each rank of the stage serves.
int32_t lanes_per_rank(const Plan& plan, StageIndex stage);
/// Of the stage whose ranks serve the most.
int32_t lanes_per_rank_max(const Plan& plan);

/// What a rank is: which replica of which stage.
struct RankPlace {
  StageIndex stage;
  int32_t replica = 0;
  bool operator==(const RankPlace&) const = default;
};
/// The rank must be one of the plan's.
RankPlace place_of(const Plan& plan, RankId rank);
RankId rank_at(const Plan& plan, LaneId lane, StageIndex stage);
/// The lanes that a rank serves, in order.
std::vector<LaneId> lanes_of(const Plan& plan, RankId rank);
/// Where a lane's share begins among the blocks of the rank that serves it at this stage.
KvBlockId first_kv_block(const Plan& plan, LaneId lane, StageIndex stage);

/// One lane's link of an edge, by an id that no other link of the plan has.
EdgeId link_of(const Plan& plan, LaneId lane, EdgeId edge);
/// The cores of every rank of the first stage, where the sequencers run.
std::vector<int> first_cores(const Plan& plan);
/// For messages: "stage 'front'"; with several lanes "stage 'front' of lane 1", or, of a rank that
/// serves several, "of lanes 0 and 2".
std::string rank_name(const Plan& plan, RankId rank);
/// Of some, in order: "lane 1"; "lanes 0 and 2"; "lanes 0, 1 and 2"; "lanes 0 to 7".
std::string lanes_text(const std::vector<LaneId>& lanes);

}  // namespace chainpump::graph
