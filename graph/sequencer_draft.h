// A microbatch while the sequencer forms it: what is in it so far, and what may still go in.
// Private to the sequencer's own files.
#pragma once

#include <limits>
#include <vector>

#include "graph/sequencer.h"

namespace chainpump::graph {

// More than the parts of a frame's metadata take, beside the tokens and blocks that they list (the
// byte table stands in microbatch.cc).
inline constexpr int64_t kFrameBytes = 64;
inline constexpr int64_t kSliceBytes = 32;
inline constexpr int64_t kReleaseBytes = 8;
inline constexpr int64_t kCopyBytes = 8;
inline constexpr int64_t kTokenBytes = 4;
inline constexpr int64_t kBlockBytes = 4;

/// More than a request's parameters take in a descriptor.
int64_t descriptor_bytes_max(const Request& request);

struct Sequencer::Draft {
  Microbatch microbatch;
  StepWork work;
  std::vector<Sequence*> prefilled;  // with known tokens in it that were not sent before
  std::vector<Sequence*> filled;     // some block of which it fills
  int32_t tokens_left = 0;
  int32_t decodes_left = 0;
  int32_t num_decodes = 0;
  int32_t prefill_left = 0;                                 // tokens
  double step_s = std::numeric_limits<double>::infinity();  // how long prefill may make the step
  int64_t metadata_left = std::numeric_limits<int64_t>::max();
  bool has_prefill = false;
  bool adopted = false;     // somebody came in of whom some stages hold something
  size_t next_prefill = 0;  // all before it in the sequencer's prefill_ are in the microbatch
  const Sequence* starved = nullptr;  // the highest that found no block
};

}  // namespace chainpump::graph
