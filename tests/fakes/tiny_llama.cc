#include "tests/fakes/tiny_llama.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/half.h"
#include "base/philox.h"
#include "tests/fakes/gguf_writer.h"

namespace chainpump::fakes {
namespace {

/// Rounds `values` to `type` in place and returns the bytes; blocks of 32 with one half scale for
/// q8_0.
std::vector<std::byte> encode(DType type, std::vector<float>& values) {
  std::vector<std::byte> bytes;
  const auto put = [&](const auto& value) {
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), raw, raw + sizeof(value));
  };
  if (type == DType::f32) {
    for (const float value : values) put(value);
    return bytes;
  }
  if (type == DType::bf16) {
    for (float& value : values) {
      put(float_to_bf16(value));
      value = bf16_to_float(float_to_bf16(value));
    }
    return bytes;
  }
  CHECK(type == DType::q8_0 && values.size() % 32 == 0);
  for (size_t block = 0; block < values.size(); block += 32) {
    float largest = 0.0f;
    for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[block + i]));
    const uint16_t half = float_to_f16(largest / 127.0f);
    const float scale = f16_to_float(half);
    put(half);
    for (size_t i = 0; i < 32; ++i) {
      const float quant = scale == 0.0f ? 0.0f : std::round(values[block + i] / scale);
      const auto q = static_cast<int8_t>(std::clamp(quant, -127.0f, 127.0f));
      put(q);
      values[block + i] = scale * static_cast<float>(q);
    }
  }
  return bytes;
}

}  // namespace

void TinyLlama::add(const std::string& name, std::vector<int64_t> dims, DType type, double scale,
                    double offset) {
  Tensor tensor{std::move(dims), type, {}, {}};
  int64_t count = 1;
  for (const int64_t dim : tensor.dims) count *= dim;
  for (int64_t i = 0; i < count; ++i) {
    const double uniform = philox_uniform(random_, 7, static_cast<uint64_t>(i)) * 2.0 - 1.0;
    tensor.values.push_back(static_cast<float>(offset + scale * uniform));
  }
  ++random_;
  tensor.bytes = encode(type, tensor.values);
  tensors_.emplace(name, std::move(tensor));
}

TinyLlama::TinyLlama(const TinyShape& shape, uint64_t seed) : shape_(shape), random_(seed << 20) {
  const int64_t q = shape.heads * shape.head_dim;
  const int64_t kv = shape.kv_heads * shape.head_dim;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    add(name + ".weight", {cols, rows}, shape.weights, 1.7 / std::sqrt(static_cast<double>(cols)));
    if (shape.biases) add(name + ".bias", {rows}, DType::f32, 0.2);
  };
  add("token_embd.weight", {shape.hidden, shape.vocabulary}, shape.weights, 1.0);
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    add(prefix + "attn_norm.weight", {shape.hidden}, DType::f32, 0.5, 1.0);
    matrix(prefix + "attn_q", q, shape.hidden);
    matrix(prefix + "attn_k", kv, shape.hidden);
    matrix(prefix + "attn_v", kv, shape.hidden);
    matrix(prefix + "attn_output", shape.hidden, q);
    add(prefix + "ffn_norm.weight", {shape.hidden}, DType::f32, 0.5, 1.0);
    matrix(prefix + "ffn_gate", shape.feed_forward, shape.hidden);
    matrix(prefix + "ffn_up", shape.feed_forward, shape.hidden);
    matrix(prefix + "ffn_down", shape.hidden, shape.feed_forward);
  }
  add("output_norm.weight", {shape.hidden}, DType::f32, 0.5, 1.0);
  if (!shape.tied) add("output.weight", {shape.hidden, shape.vocabulary}, shape.weights, 0.3);
  if (shape.freq_factors) add("rope_freqs.weight", {shape.rotary / 2}, DType::f32, 1.5, 3.0);
}

// Few letters, so that short stop strings are found often, in tokens and across them.
std::string TinyLlama::text_of(TokenId token) {
  constexpr int kLetters = 9;
  return {static_cast<char>('a' + token / kLetters), static_cast<char>('a' + token % kLetters)};
}

void TinyLlama::write_vocabulary(GgufWriter& writer) const {
  constexpr int32_t kNormal = 1;
  constexpr int32_t kControl = 3;
  const int32_t end = shape_.vocabulary - 1;
  std::vector<std::string> tokens;
  for (TokenId token = 0; token < end; ++token) tokens.push_back(text_of(token));
  tokens.emplace_back("<end>");
  std::vector<int32_t> kinds(tokens.size(), kNormal);
  kinds.back() = kControl;
  writer.key("tokenizer.ggml.model", std::string_view("gpt2"));
  writer.key("tokenizer.ggml.pre", std::string_view("gpt-2"));
  writer.key("tokenizer.ggml.tokens", tokens);
  writer.key("tokenizer.ggml.token_type", kinds);
  writer.key("tokenizer.ggml.merges", std::vector<std::string>());
  writer.key("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(end));
}

void TinyLlama::write(const std::string& path) const {
  GgufWriter writer;
  const auto size = [&](const char* name, int32_t value) {
    writer.key(std::string("llama.") + name, static_cast<uint32_t>(value));
  };
  writer.key("general.architecture", std::string_view("llama"));
  writer.key("general.name", std::string_view("tiny"));
  size("block_count", shape_.layers);
  size("context_length", shape_.context);
  size("embedding_length", shape_.hidden);
  size("feed_forward_length", shape_.feed_forward);
  size("attention.head_count", shape_.heads);
  size("attention.head_count_kv", shape_.kv_heads);
  size("attention.key_length", shape_.head_dim);
  size("attention.value_length", shape_.head_dim);
  size("rope.dimension_count", shape_.rotary);
  writer.key("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.key("llama.rope.freq_base", 10000.0f);
  if (!shape_.scaling.empty()) {
    writer.key("llama.rope.scaling.type", std::string_view(shape_.scaling));
    writer.key("llama.rope.scaling.factor", 4.0f);
    size("rope.scaling.original_context_length", 64);
  }
  if (shape_.text) write_vocabulary(writer);
  for (const auto& [name, tensor] : tensors_) {
    writer.tensor(name, tensor.dims, tensor.type, tensor.bytes);
  }
  writer.write(path);
}

TinyLlama::Vector TinyLlama::norm(const Vector& x, const std::string& weight) const {
  double sum = 0.0;
  for (const double value : x) sum += value * value;
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + 1e-5);
  const std::vector<float>& w = tensors_.at(weight).values;
  Vector out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * w[i];
  return out;
}

TinyLlama::Vector TinyLlama::project(const Vector& x, const std::string& name) const {
  const Tensor& w = tensors_.at(name + ".weight");
  Vector out(static_cast<size_t>(w.dims[1]), 0.0);
  for (size_t row = 0; row < out.size(); ++row) {
    for (size_t i = 0; i < x.size(); ++i) out[row] += x[i] * w.values[row * x.size() + i];
  }
  if (const auto bias = tensors_.find(name + ".bias"); bias != tensors_.end()) {
    for (size_t row = 0; row < out.size(); ++row) out[row] += bias->second.values[row];
  }
  return out;
}

TinyLlama::Vector TinyLlama::inverse_frequencies() const {
  const double n = shape_.rotary;
  Vector out;
  for (int32_t i = 0; i < shape_.rotary / 2; ++i) {
    double plain = std::pow(10000.0, -2.0 * i / n);
    if (shape_.freq_factors)
      plain /= tensors_.at("rope_freqs.weight").values[static_cast<size_t>(i)];
    if (shape_.scaling == "linear") plain /= 4.0;
    if (shape_.scaling == "yarn") {
      const auto pair = [&](double turns) {
        return n * std::log(64.0 / (turns * 2.0 * M_PI)) / (2.0 * std::log(10000.0));
      };
      const double low = std::max(0.0, std::floor(pair(32.0)));
      const double high = std::min(n - 1.0, std::ceil(pair(1.0)));
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      plain = plain / 4.0 * ramp + plain * (1.0 - ramp);
    }
    out.push_back(plain);
  }
  return out;
}

void TinyLlama::rotate(Vector& heads, size_t position) const {
  const Vector frequencies = inverse_frequencies();
  const double magnitude = shape_.scaling == "yarn" ? 0.1 * std::log(4.0) + 1.0 : 1.0;
  const auto width = static_cast<size_t>(shape_.head_dim);
  for (size_t head = 0; head < heads.size(); head += width) {
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      double& a = heads[head + 2 * i];
      double& b = heads[head + 2 * i + 1];
      const double turned = a * std::cos(angle) - b * std::sin(angle);
      b = (a * std::sin(angle) + b * std::cos(angle)) * magnitude;
      a = turned * magnitude;
    }
  }
}

TinyLlama::Vector TinyLlama::attend(size_t layer, const Vector& x, std::vector<Vector>& keys,
                                    std::vector<Vector>& values) const {
  const std::string prefix = fmt::format("blk.{}.", layer);
  Vector q = project(x, prefix + "attn_q");
  Vector k = project(x, prefix + "attn_k");
  rotate(q, keys.size());
  rotate(k, keys.size());
  keys.push_back(std::move(k));
  values.push_back(project(x, prefix + "attn_v"));
  const auto width = static_cast<size_t>(shape_.head_dim);
  const auto group = static_cast<size_t>(shape_.heads / shape_.kv_heads);
  Vector mixed(q.size(), 0.0);
  for (size_t head = 0; head < static_cast<size_t>(shape_.heads); ++head) {
    const size_t kv = head / group * width;
    Vector weights;
    double sum = 0.0;
    for (const Vector& key : keys) {
      double dot = 0.0;
      for (size_t d = 0; d < width; ++d) dot += q[head * width + d] * key[kv + d];
      weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(width))));
      sum += weights.back();
    }
    for (size_t at = 0; at < keys.size(); ++at) {
      for (size_t d = 0; d < width; ++d) {
        mixed[head * width + d] += weights[at] / sum * values[at][kv + d];
      }
    }
  }
  return project(mixed, prefix + "attn_output");
}

std::vector<std::vector<double>> TinyLlama::log_probs(const std::vector<TokenId>& tokens) const {
  const auto layers = static_cast<size_t>(shape_.layers);
  std::vector<std::vector<Vector>> keys(layers);
  std::vector<std::vector<Vector>> values(layers);
  std::vector<std::vector<double>> out;
  const auto hidden = static_cast<size_t>(shape_.hidden);
  for (const TokenId token : tokens) {
    const auto row = tensors_.at("token_embd.weight").values.begin() +
                     static_cast<ptrdiff_t>(static_cast<size_t>(token) * hidden);
    Vector x(row, row + static_cast<ptrdiff_t>(hidden));
    for (size_t layer = 0; layer < layers; ++layer) {
      const std::string prefix = fmt::format("blk.{}.", layer);
      const Vector attended =
          attend(layer, norm(x, prefix + "attn_norm.weight"), keys[layer], values[layer]);
      for (size_t i = 0; i < hidden; ++i) x[i] += attended[i];
      const Vector normed = norm(x, prefix + "ffn_norm.weight");
      Vector gate = project(normed, prefix + "ffn_gate");
      const Vector up = project(normed, prefix + "ffn_up");
      for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
      const Vector down = project(gate, prefix + "ffn_down");
      for (size_t i = 0; i < hidden; ++i) x[i] += down[i];
    }
    Vector logits = project(norm(x, "output_norm.weight"), shape_.tied ? "token_embd" : "output");
    double sum = 0.0;
    for (const double logit : logits) sum += std::exp(logit);
    for (double& logit : logits) logit -= std::log(sum);
    out.push_back(std::move(logits));
  }
  return out;
}

}  // namespace chainpump::fakes
