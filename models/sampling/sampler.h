// Sampling: logits of one position -> the next token, as a pure function of the logits, the
// sequence's tokens so far and its parameters. Randomness is Philox keyed by (seed, sequence index,
// position). State per sequence (token counts, text tail for stop strings) can be rebuilt from the
// descriptor at any time. One thread per object.
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
  /// Tokenizer may be null when a vocabulary has no text (then stop strings are refused).
  /// invalid_argument if the descriptor asks for what cannot be.
  static Result<Sampler> create(const graph::SequenceDescriptor& descriptor,
                                const Tokenizer* tokenizer, kernels::cpu::Isa isa);

  /// Chooses the token at `position` from its logits [vocabulary] (changed in place: biases and
  /// penalties), and takes it into the state. Positions must come in order without gaps.
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
