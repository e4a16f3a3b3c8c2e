#include "models/llama/config.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/cpu/math.h"

namespace chainpump::models {
namespace {

/// Reads `llama.*` keys; remembers the first error, so that the caller asks once at the end.
class KeyReader {
 public:
  explicit KeyReader(const GgufFile& file) : file_(file) {}

  bool has(const std::string& key) const { return file_.metadata().contains("llama." + key); }

  int32_t integer(const std::string& key, int64_t low, int64_t high) {
    const std::optional<int64_t> value = file_.find_int("llama." + key);
    if (!value) {
      fail(key, "is missing or not an integer");
      return static_cast<int32_t>(low);
    }
    if (*value < low || *value > high) {
      fail(key, fmt::format("is {}, outside [{}, {}]", *value, low, high));
      return static_cast<int32_t>(low);
    }
    return static_cast<int32_t>(*value);
  }
  int32_t integer_or(const std::string& key, int64_t low, int64_t high, int64_t otherwise) {
    if (!has(key)) return static_cast<int32_t>(otherwise);
    return integer(key, low, high);
  }
  double number(const std::string& key, double low, double high) {
    const std::optional<double> value = file_.find_float("llama." + key);
    if (!value) {
      fail(key, "is missing or not a number");
      return low;
    }
    if (!(*value >= low && *value <= high)) {  // NaN fails too
      fail(key, fmt::format("is {}, outside [{}, {}]", *value, low, high));
      return low;
    }
    return *value;
  }
  double number_or(const std::string& key, double low, double high, double otherwise) {
    return has(key) ? number(key, low, high) : otherwise;
  }
  void fail(const std::string& key, const std::string& what) {
    if (!error_) error_ = make_error(ErrorCode::bad_file, "key llama.{} {}", key, what);
  }
  void refuse(std::string what) {
    if (!error_) error_ = Error{ErrorCode::unimplemented, std::move(what)};
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  const GgufFile& file_;
  std::optional<Error> error_;
};

void read_rope_scaling(const GgufFile& file, KeyReader& keys, RopeConfig& rope) {
  const std::string prefix = "rope.scaling.";
  std::string_view kind = "linear";  // what the key's absence has always meant
  if (keys.has(prefix + "type")) {
    const std::optional<std::string_view> text = file.find_string("llama.rope.scaling.type");
    if (!text) {
      keys.fail(prefix + "type", "is not a string");
      return;
    }
    kind = *text;
  }
  if (kind == "linear") {
    rope.scaling = RopeScalingKind::linear;
  } else if (kind == "yarn") {
    rope.scaling = RopeScalingKind::yarn;
  } else if (kind == "none") {
    rope.scaling = RopeScalingKind::none;
  } else {
    keys.refuse(
        fmt::format("RoPE scaling `{}` (key llama.rope.scaling.type) is not supported; "
                    "known are none, linear and yarn",
                    kind));
  }
  // Old files say rope.scale_linear; 0 stands for "no scaling" in both.
  const double old_factor = keys.number_or("rope.scale_linear", 0.0, 1e6, 0.0);
  const double factor = keys.number_or(prefix + "factor", 0.0, 1e6, old_factor);
  rope.factor = factor == 0.0 || rope.scaling == RopeScalingKind::none ? 1.0 : factor;
  if (rope.factor < 1e-3) keys.fail(prefix + "factor", fmt::format("is {}, too small", factor));
  rope.attention_factor = keys.number_or(prefix + "attn_factor", 1e-3, 1e3, 1.0);
  rope.yarn_log_multiplier = keys.number_or(prefix + "yarn_log_multiplier", 0.0, 1e3, 0.0);
  rope.yarn_ext_factor = keys.number_or(prefix + "yarn_ext_factor", 0.0, 1.0, 1.0);
  rope.yarn_beta_fast = keys.number_or(prefix + "yarn_beta_fast", 1e-3, 1e6, 32.0);
  rope.yarn_beta_slow = keys.number_or(prefix + "yarn_beta_slow", 1e-3, 1e6, 1.0);
}

void check_tensor_sizes(KeyReader& keys, LlamaConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    keys.fail("attention.head_count_kv", fmt::format("is {}, which does not divide the {} heads",
                                                     config.num_kv_heads, config.num_heads));
  }
  if (keys.has("attention.key_length")) {
    config.head_dim = keys.integer("attention.key_length", 2, 1024);
  } else if (config.hidden_size % config.num_heads != 0) {
    keys.fail("attention.head_count", fmt::format("is {}, which does not divide the width {}",
                                                  config.num_heads, config.hidden_size));
  } else {
    config.head_dim = config.hidden_size / config.num_heads;
  }
  const int32_t value_length = keys.integer_or("attention.value_length", 1, 1024, config.head_dim);
  if (value_length != config.head_dim) {
    keys.refuse(fmt::format("values of {} elements beside keys of {} are not supported",
                            value_length, config.head_dim));
  }
  if (config.head_dim < 2 || config.head_dim > 1024 || config.head_dim % 2 != 0) {
    keys.fail("attention.key_length",
              fmt::format("makes heads of {} elements; an even number in [2, 1024] is needed",
                          config.head_dim));
  }
}

double yarn_magnitude(double scale, double multiplier) {
  return scale <= 1.0 ? 1.0 : 0.1 * multiplier * kernels::cpu::log_f64(scale) + 1.0;
}

/// The rotary dimension that turns `turns` times within the original context.
double correction_dim(const RopeConfig& config, double turns) {
  constexpr double kTwoPi = 6.283185307179586;
  return config.rotary_dim * kernels::cpu::log_f64(config.original_context / (turns * kTwoPi)) /
         (2.0 * kernels::cpu::log_f64(config.base));
}

}  // namespace

Result<LlamaConfig> read_llama_config(const GgufFile& file) {
  const std::optional<std::string_view> architecture = file.find_string("general.architecture");
  if (!architecture) {
    return make_error(ErrorCode::bad_file, "key general.architecture is missing or not a string");
  }
  if (*architecture != "llama") {
    return make_error(ErrorCode::unimplemented, "architecture `{}` is not supported; known: llama",
                      *architecture);
  }
  KeyReader keys(file);
  LlamaConfig config;
  config.name = std::string(file.find_string("general.name").value_or("unnamed"));
  config.num_layers = keys.integer("block_count", 1, 4096);
  config.hidden_size = keys.integer("embedding_length", 2, 1 << 17);
  config.feed_forward_size = keys.integer("feed_forward_length", 1, 1 << 20);
  config.num_heads = keys.integer("attention.head_count", 1, 4096);
  config.num_kv_heads = keys.integer_or("attention.head_count_kv", 1, 4096, config.num_heads);
  config.context_tokens = keys.integer("context_length", 1, 1 << 26);
  config.rms_epsilon =
      static_cast<float>(keys.number("attention.layer_norm_rms_epsilon", 1e-12, 1.0));
  if (keys.integer_or("expert_count", 0, 1 << 20, 0) > 0) {
    keys.refuse("mixtures of experts (key llama.expert_count) are not supported");
  }
  check_tensor_sizes(keys, config);

  config.rope.base = keys.number_or("rope.freq_base", 1.5, 1e12, 10000.0);
  config.rope.rotary_dim = keys.integer_or("rope.dimension_count", 2, 1024, config.head_dim);
  if (config.rope.rotary_dim % 2 != 0 || config.rope.rotary_dim > config.head_dim) {
    keys.fail("rope.dimension_count", fmt::format("is {}; an even number of at most {} is needed",
                                                  config.rope.rotary_dim, config.head_dim));
  }
  config.rope.original_context =
      keys.integer_or("rope.scaling.original_context_length", 1, 1 << 26, config.context_tokens);
  read_rope_scaling(file, keys, config.rope);

  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr) {
    return make_error(ErrorCode::bad_file, "tensor token_embd.weight is missing");
  }
  if (embedding->rows() < 1 || embedding->rows() > (1 << 22)) {
    return make_error(ErrorCode::bad_file, "tensor token_embd.weight has {} rows, outside [1, {}]",
                      embedding->rows(), 1 << 22);
  }
  config.vocabulary_size = static_cast<int32_t>(embedding->rows());
  if (const auto* tokens = file.find_strings("tokenizer.ggml.tokens");
      tokens != nullptr && static_cast<int64_t>(tokens->size()) != embedding->rows()) {
    return make_error(ErrorCode::bad_file,
                      "tokenizer.ggml.tokens has {} entries, token_embd.weight {} rows",
                      tokens->size(), embedding->rows());
  }
  if (keys.error()) return *keys.error();
  return config;
}

RopeTable make_rope_table(const RopeConfig& config, std::span<const float> freq_factors) {
  const int32_t half = config.rotary_dim / 2;
  CHECK(freq_factors.empty() || freq_factors.size() == static_cast<size_t>(half));
  const bool yarn = config.scaling == RopeScalingKind::yarn && config.yarn_ext_factor != 0.0;
  const double low =
      yarn ? std::max(0.0, std::floor(correction_dim(config, config.yarn_beta_fast))) : 0.0;
  const double high = yarn ? std::min(config.rotary_dim - 1.0,
                                      std::ceil(correction_dim(config, config.yarn_beta_slow)))
                           : 0.0;
  RopeTable table;
  table.inverse_frequencies.resize(static_cast<size_t>(half));
  for (int32_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * i / config.rotary_dim;
    double frequency = kernels::cpu::exp_f64(exponent * kernels::cpu::log_f64(config.base));
    if (!freq_factors.empty()) frequency /= double{freq_factors[static_cast<size_t>(i)]};
    double scaled = frequency / config.factor;
    if (yarn) {
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      const double keep = (1.0 - ramp) * config.yarn_ext_factor;
      scaled = scaled * (1.0 - keep) + frequency * keep;
    }
    table.inverse_frequencies[static_cast<size_t>(i)] = static_cast<float>(scaled);
  }
  double magnitude = config.attention_factor;
  if (yarn) {
    magnitude *= yarn_magnitude(config.factor, 1.0);
    if (config.yarn_log_multiplier != 0.0) {
      magnitude /= yarn_magnitude(config.factor, config.yarn_log_multiplier);
    }
  }
  table.magnitude = static_cast<float>(magnitude);
  return table;
}

}  // namespace chainpump::models
