// A graph file in memory: a DAG of stages with typed ports, and the settings of one deployment.
// Parsed and checked against itself; whether it fits a model and a machine is the planner's
// question. Values that were not given hold their default; "auto" is 0 or an empty optional.
// Plain data; one thread.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "graph/diagnostics.h"
#include "graph/plan.h"

namespace chainpump::graph {

enum class Op : uint8_t { decoder, encoder, torch, tokenize, pool, classify, merge };
std::string_view to_string(Op op);

/// What flows out of or into a stage.
enum class PortType : uint8_t { text, tokens, activation, embedding, scores };
std::string_view to_string(PortType type);

/// Shape by named symbols: activation is f32 [num_tokens, hidden_size].
struct Port {
  PortType type = PortType::activation;
  std::vector<std::string> shape;
};

struct DeviceRequest {
  enum class Kind : uint8_t { automatic, cpu, cuda };
  Kind kind = Kind::automatic;
  std::vector<int> cores;  // empty: any
  int cuda_index = 0;
};

/// Half-open, as everywhere in the code; a file says FIRST-LAST, both included.
struct LayerRange {
  int32_t begin = 0;
  int32_t end = 0;
};

struct Stage {
  std::string name;
  Op op = Op::decoder;
  std::vector<int32_t> inputs;  // indices of stages; empty: fed from outside
  std::vector<Port> input_ports;
  Port output_port;
  std::optional<LayerRange> layers;
  DeviceRequest device;
  int32_t threads = 0;
  int32_t replicas = 1;
  int32_t standbys = 0;
  std::vector<std::string> nodes = {};  // names or labels; empty: any (graph/placement.h)
  std::string module;
  bool trusted = false;
  Position at;
};

enum class WireType : uint8_t { f32, bf16, int8 };

struct Graph {
  std::string name = "graph";
  std::string model_path;
  std::vector<Stage> stages;
  int32_t threads = 0;
  bool exact_activations = false;
  int32_t prefill_chunk = 256;
  int32_t decode_delay_ms = 100;
  int32_t max_sequences = 32;
  int32_t max_queued = 1024;
  int32_t max_microbatches = 0;
  DType kv_type = DType::f32;
  int64_t kv_budget_bytes = 0;
  int32_t kv_blocks = 0;
  int32_t context_tokens = 0;
  bool prefix_cache = true;
  TransportKind transport = TransportKind::automatic;
  SpinPolicy spin = SpinPolicy::automatic;
  ChecksumPolicy checksum = ChecksumPolicy::automatic;
  WireType wire = WireType::f32;
  int32_t credits = 4;
  int64_t memory_bytes = 0;
  int32_t failover_restarts = 5;
  int32_t failover_window_ms = 60000;
  bool failover_evicts_slow = false;        // `failover.slow: evict`
  std::optional<int64_t> replay_log_bytes;  // none: auto
};

/// A chain of `count` decoder stages, as `stages: COUNT` gives.
std::vector<Stage> decoder_chain(int32_t count);

/// All that is wrong goes to `out`; nothing is returned then. Any bytes are safe.
std::optional<Graph> parse_graph(std::string_view text, Diagnostics& out);

/// The same with the errors as text. bad_file.
Result<Graph> parse_graph_text(std::string_view text, std::string_view file_name);

/// Reads a file; its model path is then relative to the current folder. not_found, bad_file; what
/// is wrong within the file also stands in `out`.
Result<Graph> load_graph(const std::filesystem::path& path, Diagnostics& out);
Result<Graph> load_graph(const std::filesystem::path& path);

}  // namespace chainpump::graph
