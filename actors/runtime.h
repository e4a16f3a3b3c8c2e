// The runtime: a plan brought to life, for whoever embeds it. It starts the ranks (processes of
// their own, or actors in this process), runs sequences on them, and takes everything down with it.
// Needs neither CAF nor RPC headers.
//
// Thread rule: every method from any thread; callbacks on a thread of the runtime (or, for a submit
// that cannot be and for what stop() ends, in the caller's), one at a time per request, and they
// must be short. A callback may call submit(), cancel() and stop(), and nothing else; none comes
// after stop() has returned outside a callback.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/step_trace.h"
#include "graph/fair_queue.h"
#include "graph/health.h"
#include "graph/microbatch.h"
#include "graph/plan.h"

namespace chainpump::actors {

struct RuntimeOptions {
  bool in_process = false;   // stages as threads of this process, over loopback links
  std::string rank_program;  // whose `rank` verb is a rank's program; empty: this program
  std::string isa;           // restricts the kernels (CHAINPUMP_ISA), or empty
  bool spin_between_ops = true;
  std::string cache_folder;  // where ranks keep repacked weights between starts; empty: nowhere
  /// Loading, rank by rank; may be empty.
  std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)> on_progress;
  /// A rank that died and is replaced, and the like, in a sentence; may be empty, and must be
  /// short.
  std::function<void(const std::string&)> on_notice;
};

/// A prompt and the sequences that are to go on from it, with indices in a row: they share its
/// blocks, and differ by what they draw. graph/request.h says more.
struct SequenceRequest {
  uint32_t sequence_index = 0;  // of the first
  int32_t num_sequences = 1;
  graph::TenantId tenant;
  uint64_t cache_salt = 0;
  int32_t priority = 0;
  graph::SamplingParams sampling;
  graph::ScoreParams score;
  std::vector<TokenId> prompt;
  std::vector<TokenId> generated = {};  // of a sequence that goes on; only with one
};

struct SequenceCallbacks {
  std::function<void(const graph::TokenResult&)> on_token;
  std::function<void(const graph::ScoreResult&)> on_score;
  /// The last call for this sequence. With an error there may have been results before it.
  std::function<void(Result<Ok>)> on_end;
};

/// Where one rank's time went since it started serving, and what it holds.
struct StageReport {
  std::vector<graph::LaneId> lanes = {graph::LaneId(0)};  // that the rank serves, in order
  StageIndex stage;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  int32_t pid = 0;
  std::vector<int32_t> cores;
  int64_t weight_bytes_read = 0;
  int64_t weight_bytes_held = 0;
  int64_t kv_bytes = 0;
  uint64_t steps = 0;
  uint64_t tokens = 0;
  uint64_t tokens_again = 0;  // of them computed again, as some stage had lost them
  Duration busy{0};
  Duration transfer{0};
  Duration bubble_input{0};
  Duration bubble_credit{0};
  Duration idle{0};
  std::string node = {};  // its machine in a cluster
};

/// One link, as both its ends see it.
struct LinkReport {
  graph::LaneId lane;
  EdgeId edge;
  std::string transport;
  uint64_t frames = 0;
  uint64_t payload_bytes = 0;
  uint64_t metadata_bytes = 0;
  uint64_t copied_bytes = 0;
  double latency_p50_us = 0;
  double latency_p99_us = 0;
};

/// What a lane's sequencer has to do and to do it with.
struct LaneReport {
  graph::LaneId lane;
  int32_t num_running = 0;  // sequences
  int32_t num_waiting = 0;
  int32_t num_kv_blocks = 0;       // on every stage
  int32_t num_free_kv_blocks = 0;  // held by no sequence, though some may keep a prefix
};

struct RuntimeReport {
  std::string numerics_id;
  std::vector<StageReport> stages;  // of every rank, as the plan numbers them
  std::vector<LinkReport> links;
  std::vector<LaneReport> lanes;  // in order
};

/// What a deployment runs by, since that has been changed (Service, `chainpump apply`).
struct Planned {
  graph::Plan plan;
  std::string graph_text;
};

class Runtime {
 public:
  /// Starts bringing the plan up and returns at once; wait_ready() says how it went.
  static Result<std::unique_ptr<Runtime>> start(const graph::Plan& plan, RuntimeOptions options);
  /// Uses the deployment of the service in `folder` (actors/service.h) instead of one of its own:
  /// its stop() leaves that as it is. not_found: there is none, or it has ended.
  using ProgressCallback =
      std::function<void(RankId rank, int64_t bytes_done, int64_t bytes_total)>;
  static Result<std::unique_ptr<Runtime>> attach(const std::string& folder,
                                                 ProgressCallback on_progress);
  /// stop(), if that has not been done. Not in a callback.
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Ok once every stage has loaded and is connected; else why it cannot be, with the stage's name.
  Status wait_ready(Duration timeout);

  /// Runs a request, with callbacks for each of its sequences. What cannot run is told so by
  /// on_end; a deployment that has died says why it died. A rank that dies and is replaced makes a
  /// pause, no more; who comes in it waits.
  RequestId submit(SequenceRequest request, Duration timeout,
                   std::vector<SequenceCallbacks> callbacks);
  RequestId submit(SequenceRequest request, Duration timeout, SequenceCallbacks callbacks);
  /// on_end comes with `cancelled` for each sequence that has not ended.
  void cancel(RequestId request);

  Result<RuntimeReport> report(Duration timeout);
  /// Whether tokens get through, as far as is known now, and if not, why.
  graph::HealthReport health() const;
  /// What the deployment goes on by, if that is not what the runtime began with; else null.
  std::shared_ptr<const Planned> planned() const;
  /// What one rank did step by step, from its event number `since` (0: the oldest that is there)
  /// on, a part at a time. invalid_argument: there is no such rank.
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration timeout);

  /// Ends every rank: no process or socket is left when this returns. In a callback it only sets
  /// that going.
  void stop();

 private:
  struct Impl;
  explicit Runtime(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::actors
