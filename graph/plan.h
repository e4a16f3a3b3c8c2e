// The plan: an immutable assignment of a model's layers to stages, devices and links, made from a
// graph file, a model profile and a machine profile before any weight is read. Plain data; what
// ranks are told (schemas/plan.capnp carries it).
//
// Lanes. Where stages have replicas, replica i of every stage is a rank of lane i: an independent
// chain with its own links, KV blocks, slots, credits and sequencer, on devices of its own. What
// the plan says of a stage, an edge or the KV holds for each of its replicas. No rank is in two
// lanes, so that there is nothing to be divided among them.
//   rank = lane * stages + stage;  a lane's link of an edge = lane * edges + edge
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
};

struct StagePlan {
  StageIndex index;
  std::string name;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  bool has_embedding = false;
  bool has_head = false;
  std::vector<DevicePlan> devices = {DevicePlan{}};  // of its ranks, by lane
  int32_t num_threads = 1;
  int64_t weight_bytes = 0;        // in the file; what this rank may touch
  int64_t kv_bytes = 0;            // its whole block pool
  int64_t slot_bytes = 0;          // all receive and send slots
  double predicted_decode_s = 0;   // one token through this stage
  double predicted_prefill_s = 0;  // one prefill chunk; the largest microbatch if there is none
};

/// A link from one stage to the next, or the return edge from the last to the first.
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
};

struct KvPlan {
  DType type = DType::f32;
  int32_t block_tokens = 0;
  int32_t num_blocks = 0;  // the same on every stage of the lane
};

struct Plan {
  PlanEpoch epoch{1};
  std::string model_path;
  int32_t context_tokens = 0;        // longest sequence admitted
  int32_t prefill_chunk_tokens = 0;  // 0: the scheduler sizes chunks by the time they take
  int32_t max_microbatch_tokens = 0;
  int32_t max_sequences = 0;     // running at once, on each lane
  int32_t max_queued = 1024;     // sequences waiting, for each lane
  int32_t max_microbatches = 0;  // in flight, on each lane
  // What prefill may add to the time between two tokens, where the scheduler sizes chunks.
  Duration decode_delay_max = std::chrono::milliseconds(100);
  bool prefix_cache = true;
  bool exact_activations = false;  // `activations: f32`
  KvPlan kv;
  std::vector<StagePlan> stages;  // in chain order
  std::vector<EdgePlan> edges;    // edges[i] from stage i to i + 1; the last is the return edge
};

int32_t num_lanes(const Plan& plan);
int32_t num_ranks(const Plan& plan);
RankId rank_at(const Plan& plan, LaneId lane, StageIndex stage);
LaneId lane_of(const Plan& plan, RankId rank);
StageIndex stage_of(const Plan& plan, RankId rank);
/// One lane's link of an edge, by an id that no other link of the plan has.
EdgeId link_of(const Plan& plan, LaneId lane, EdgeId edge);
/// The cores of every lane's first rank, where its sequencer runs.
std::vector<int> first_cores(const Plan& plan);
/// For messages: "stage 'front'", and with several lanes "stage 'front' of lane 1".
std::string rank_name(const Plan& plan, RankId rank);

}  // namespace chainpump::graph
