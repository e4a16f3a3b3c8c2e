// Tiny seeded llama models: written as GGUF files for the executor to load, and run here in plain
// double precision, straight from the formulas, for it to be compared with. Shares no arithmetic
// with models/ or kernels/. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/ids.h"

namespace chainpump::fakes {

class GgufWriter;

struct TinyShape {
  int32_t layers = 5;
  int32_t hidden = 64;
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  int32_t feed_forward = 96;
  int32_t vocabulary = 80;
  int32_t rotary = 16;
  int32_t context = 512;
  DType weights = DType::f32;  // f32, bf16 or q8_0
  bool tied = true;
  bool biases = false;
  bool freq_factors = false;
  bool text = false;    // with a byte-level vocabulary: token i is two letters; the last one ends
  std::string scaling;  // "linear", "yarn" (factor 4 over 64 tokens), or empty
};

class TinyLlama {
 public:
  TinyLlama(const TinyShape& shape, uint64_t seed);

  void write(const std::string& path) const;
  /// What a token stands for in a model with text.
  static std::string text_of(TokenId token);
  /// Log-probabilities of the token after each of `tokens`: [tokens, vocabulary].
  std::vector<std::vector<double>> log_probs(const std::vector<TokenId>& tokens) const;

 private:
  struct Tensor {
    std::vector<int64_t> dims;  // row length first
    DType type;
    std::vector<float> values;  // exactly what the file's bytes stand for
    std::vector<std::byte> bytes;
  };
  using Vector = std::vector<double>;

  void write_vocabulary(GgufWriter& writer) const;

  void add(const std::string& name, std::vector<int64_t> dims, DType type, double scale,
           double offset = 0.0);
  Vector norm(const Vector& x, const std::string& weight) const;
  Vector project(const Vector& x, const std::string& name) const;
  void rotate(Vector& heads, size_t position) const;
  Vector inverse_frequencies() const;
  Vector attend(size_t layer, const Vector& x, std::vector<Vector>& keys,
                std::vector<Vector>& values) const;

  TinyShape shape_;
  uint64_t random_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace chainpump::fakes
