// The microbatch and its result, and their byte form in a frame's metadata section: all that a
// stage needs travels in-band and in order. Pure; any thread.
//
// Block ids are the lane's: every stage of a lane uses the same id for the same positions, so one
// table serves all. A stage builds each sequence's table from the frames it sees, and does what a
// microbatch says in this order: forget `released`; do `copies`; take in descriptors and slices;
// compute. Frames are processed in order, so what one frame writes the next may read, and a block
// that the sequencer took back may be another's in the very next frame.
#pragma once

#include <algorithm>
#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/sampling_params.h"

namespace chainpump::graph {

/// Teacher forcing: log-probabilities of given tokens instead of sampling.
struct ScoreParams {
  int32_t first_position = -1;  // the first whose next token is scored; -1: no scoring
  std::string full_path;        // .npy file to write all log-probabilities to, or empty
  bool operator==(const ScoreParams&) const = default;
};

/// Goes with a sequence's first frame on each link incarnation; the last stage rebuilds penalty and
/// stop state from it.
struct SequenceDescriptor {
  SequenceId id;
  uint64_t identity = 0;        // its request's (graph/request.h)
  uint32_t sequence_index = 0;  // within its request, for n > 1
  SamplingParams sampling;
  ScoreParams score;
  std::vector<TokenId> prompt;
  std::vector<TokenId> generated;  // produced before this incarnation
  bool operator==(const SequenceDescriptor&) const = default;
};

/// Copies a whole KV block, in every layer. `from` must hold something; `to` must stand in no
/// table.
struct BlockCopy {
  KvBlockId from;
  KvBlockId to;
  bool operator==(const BlockCopy&) const = default;
};

/// Of thousands that decode each slice has one token, which needs no memory of its own.
class SliceTokens : public boost::container::small_vector<TokenId, 1> {
 public:
  using small_vector::small_vector;
  SliceTokens(const std::vector<TokenId>& tokens) : small_vector(tokens.begin(), tokens.end()) {}
  friend bool operator==(const SliceTokens& a, const SliceTokens& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
};

/// One sequence's consecutive tokens in a microbatch. Its block table is first cut to
/// `table_offset`, which is at most what the stage holds, then `new_blocks` are appended: so a copy
/// takes the place of a block that others share. Positions before a sequence's first slice lie in
/// shared blocks (a prefix hit, n > 1) and must have been written; a slice writes only into blocks
/// that stand in its own table alone. Positions that the stage holds already are computed again,
/// for the stages after it, but not written.
struct SequenceSlice {
  SequenceId id;
  int32_t first_position = 0;
  SliceTokens tokens;
  int32_t table_offset = 0;           // blocks of its table that stay
  std::vector<KvBlockId> new_blocks;  // appended to them
  bool sample = false;                // sample after the slice's last token
  bool operator==(const SequenceSlice&) const = default;
};

/// Stages of a chain, both ends among them.
struct StageSpan {
  static constexpr int32_t kEnd = std::numeric_limits<int32_t>::max();  // to the end of the chain
  int32_t first = 0;
  int32_t last = kEnd;
  bool contains(StageIndex stage) const { return stage.value >= first && stage.value <= last; }
  bool operator==(const StageSpan&) const = default;
};

struct Microbatch {
  MicrobatchId id;
  /// The longest that a stage computed for this microbatch so far, and which stage that was; each
  /// stage notes its own before it sends the frame on (note_step_time).
  Duration slowest{0};
  StageIndex slowest_stage;
  /// Who computes the slices: all, unless a stage has lost KV that others still hold. The one
  /// before the first of them has logged what it sent them for these positions, and sends it again;
  /// the others only pass the frame on, and forget and copy what it says.
  StageSpan stages;
  /// Nothing that is logged may be dropped: some of it may be asked for.
  bool keep_log = false;
  /// Nothing in it is anybody's: it is not counted.
  bool canary = false;
  std::vector<SequenceId> released;  // forgotten before anything else is done
  std::vector<BlockCopy> copies;     // done next, in this order
  std::vector<SequenceDescriptor> descriptors;
  std::vector<SequenceSlice> slices;
  bool operator==(const Microbatch&) const = default;

  int32_t num_tokens() const;
};

enum class FinishReason : uint8_t { none = 0, stop = 1, length = 2, cancelled = 3, failed = 4 };
std::string_view to_string(FinishReason reason);

struct TokenResult {
  SequenceId id;
  int32_t position = 0;  // of the new token
  TokenId token = 0;
  float logprob = 0.0f;  // of `token` in the unmodified distribution; valid if asked for
  std::vector<std::pair<TokenId, float>> top_logprobs;
  FinishReason finish = FinishReason::none;
  /// With finish == stop by a stop string: how many bytes of the generated text remain; else -1.
  int64_t text_bytes = -1;
  bool operator==(const TokenResult&) const = default;
};

struct ScoreResult {
  SequenceId id;
  int32_t position = 0;  // of the token whose successor is scored
  float logprob = 0.0f;
  TokenId argmax = 0;
  bool failed = false;  // the logits were not finite numbers: the rest means nothing
  bool operator==(const ScoreResult&) const = default;
};

struct StepResult {
  MicrobatchId id;
  Duration slowest{0};  // as in the microbatch, the last stage included
  StageIndex slowest_stage;
  std::vector<TokenResult> tokens;
  std::vector<ScoreResult> scores;
  bool operator==(const StepResult&) const = default;
};

/// What a decoder accepts; from the plan.
struct MicrobatchLimits {
  int32_t max_tokens = 0;
  int32_t max_sequences = 0;
  int32_t context_tokens = 0;
  int32_t num_kv_blocks = 0;
  int32_t vocabulary_size = 0;
};

/// Both append to `out`; the byte table stands in microbatch.cc.
void encode(const Microbatch& microbatch, std::vector<std::byte>& out);
void encode(const StepResult& result, std::vector<std::byte>& out);
/// Patches an encoded microbatch or step result if `spent` is longer than what it carries.
void note_step_time(std::span<std::byte> encoded, Duration spent, StageIndex stage);
/// invalid_argument naming the field. Every count is checked against the bytes that are there and
/// against `limits` before anything is allocated; sampling parameters are validated; nothing may
/// follow the last field. Not checked here: whether it fits what a stage holds.
Result<Microbatch> decode_microbatch(std::span<const std::byte> bytes,
                                     const MicrobatchLimits& limits);
Result<StepResult> decode_step_result(std::span<const std::byte> bytes,
                                      const MicrobatchLimits& limits);

}  // namespace chainpump::graph
