// Sampling: logits of one position -> the next token, as a pure function of the logits, the
// sequence's tokens so far and its parameters. Randomness is Philox keyed by (seed, sequence index,
// position). State per sequence (token counts, text tail for stop strings) can be rebuilt from the
// descriptor at any time. One thread per object.
//
// Order of operations: logit bias; repetition penalty; frequency and presence penalty; then the
// largest (temperature below 1e-5), or temperature, top-k, top-p, min-p and the draw
// (models/sampling/draw.h). Log-probabilities are of the distribution before all of this.
// A sequence ends with stop (a stop id, an end token of the model unless ignore_eos, a stop string
// in the generated text), with length after max_new_tokens, or with failed if the logits are not
// numbers. The token that ended it is in the result; its text is not part of the answer when a
// stop id or end token ended it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "graph/microbatch.h"
#include "kernels/cpu/isa.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::models {

class Sampler {
 public:
  /// The tokenizer must outlive the sampler; it may be null when a vocabulary has no text (then
  /// stop strings are refused). invalid_argument if the descriptor asks for what cannot be.
  static Result<Sampler> create(const graph::SequenceDescriptor& descriptor,
                                const Tokenizer* tokenizer, kernels::cpu::Isa isa);

  /// Chooses the token at `position` from its logits [vocabulary] (changed in place: biases and
  /// penalties), and takes it into the state. Positions must come in order without gaps, the first
  /// is the number of tokens in the descriptor.
  graph::TokenResult sample(int32_t position, std::span<float> logits);

  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;
  ~Sampler();

 private:
  struct State;
  explicit Sampler(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace chainpump::models
