// Replays mixed requests on the engine as it is, and compares every token id and log-probability,
// bit for bit, with what each request gets alone. The engine: for each lane a sequencer and its
// stage loops over loopback links, with the real executors of a tiny model; all in one thread and
// in virtual time, so that a seed replays whatever it did. Alone: a chain of one stage without any
// sequencer, one sequence at a time, its prompt in one piece.
// Not here: processes, actors and their threads (runtime_test.cc, tests/cli/one_law_test.py).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "graph/request.h"
#include "tests/fakes/temporary_folder.h"

namespace chainpump::actors {

/// A tiny model with a vocabulary, on disk.
struct ReplayModel {
  ReplayModel();
  static constexpr int32_t kLayers = 5;
  static constexpr int32_t kVocabulary = 80;
  static constexpr int32_t kContext = 192;  // that is served
  std::string path() const { return folder.path() / "tiny.gguf"; }
  TemporaryFolder folder;
};

/// One request to replay. It is asked for again, with the tokens it has had, as if its lane had
/// been lost, if `resumes`.
struct Asked {
  graph::Request request;
  bool resumes = false;
};

/// `count` requests of every kind, drawn from the seed.
std::vector<Asked> draw_requests(uint64_t seed, int count);

/// What one choice of a request gets.
struct Outcome {
  std::vector<graph::TokenResult> tokens;
  std::vector<graph::ScoreResult> scores;
};

/// Outcomes of each choice of each request, alone. The KV type is part of the arithmetic.
std::vector<std::vector<Outcome>> run_alone(const ReplayModel& model, DType kv_type,
                                            const std::vector<Asked>& asked);

struct Setting {
  DType kv_type = DType::f32;
  int num_stages = 1;
  int num_lanes = 1;
  bool prefix_cache = true;
  uint64_t seed = 0;  // what else there is to choose, and the order of events
  /// Steps take so many times as long as usual, and prefill chunks are sized by what steps are
  /// measured to take, within all that a microbatch may hold. 0: usual steps, any kind of chunk.
  double measured_chunks_at = 0;
};
std::string describe(const Setting& setting);

struct Replayed {
  std::string wrong;  // empty if every outcome was the one alone
  uint64_t preemptions = 0;
  uint64_t prompt_tokens_hit = 0;
  int num_completed = 0;        // choices
  int num_cut_short = 0;        // choices cancelled or past their deadline
  std::vector<int32_t> chunks;  // lengths of the pieces of prompts that are not their last
};

Replayed replay(const ReplayModel& model, const Setting& setting, const std::vector<Asked>& asked,
                const std::vector<std::vector<Outcome>>& alone);

}  // namespace chainpump::actors
