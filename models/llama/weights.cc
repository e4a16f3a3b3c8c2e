#include "models/llama/weights.h"

#include <sys/mman.h>

#include <utility>

#include "models/gguf/pages.h"

namespace chainpump::models {
namespace {

using kernels::cpu::ActivationPrecision;
using kernels::cpu::PackedMatrix;

class Loader {
 public:
  Loader(const StageSpec& spec, kernels::cpu::Isa isa, kernels::cpu::Team& team, PanelCache& cache,
         const LoadProgress& progress, int64_t bytes_total)
      : spec_(spec),
        isa_(isa),
        team_(team),
        cache_(cache),
        progress_(progress),
        bytes_total_(bytes_total) {}

  std::vector<float> vector(const GgufTensor* tensor) {
    if (tensor == nullptr) return {};
    std::vector<float> values = read_f32(*tensor);
    held_ += static_cast<int64_t>(tensor->bytes.size());
    read_ += static_cast<int64_t>(tensor->bytes.size());
    count(*tensor);
    return values;
  }

  /// The matrices of `tensors`, side by side in memory: from the cache, else packed and kept there.
  std::vector<PackedMatrix> matrices(std::string name,
                                     const std::vector<const GgufTensor*>& tensors,
                                     const std::vector<ActivationPrecision>& precisions) {
    std::vector<PackedMatrix> packed;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const GgufTensor* tensor = tensors[i];
      const ActivationPrecision precision =
          spec_.exact_activations ? ActivationPrecision::exact : precisions[i];
      packed.push_back(PackedMatrix::allocate(isa_, tensor->type, precision, tensor->rows(),
                                              tensor->cols(), &arena_));
      held_ += packed.back().bytes();
    }
    PanelSection section{.name = std::move(name), .parts = {}, .raw = {}};
    for (size_t i = 0; i < tensors.size(); ++i)
      section.parts.push_back({tensors[i]->type, tensors[i]->bytes, &packed[i]});
    const bool cached = cache_.load(section, team_);
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (!cached) pack(*tensors[i], packed[i]);
      count(*tensors[i]);
    }
    if (!cached) cache_.store(section, team_);
    // A private read-only mapping of a file: what is dropped here comes back from the file.
    for (const GgufTensor* tensor : tensors) advise_pages(tensor->bytes, MADV_DONTNEED);
    return packed;
  }

  // Rounding to 8 bits costs most where every later token reads the result (V), where nothing after
  // it averages the loss out (the last layer, the head), and where the residual stream is still
  // small (the first layer). 16 bits there, a twelfth more multiplications, take the real model's
  // divergence from float32 from about 5e-3 to 1.5e-3 nats.
  LayerWeights layer(const LayerTensors& t, int32_t index, bool is_first_or_last) {
    constexpr auto kNormal = ActivationPrecision::normal;
    constexpr auto kFine = ActivationPrecision::fine;
    const auto ffn = is_first_or_last ? kFine : kNormal;
    std::vector<float> attention_norm = vector(t.attention_norm);
    std::vector<PackedMatrix> m = matrices(
        fmt::format("layer-{}", index),
        {t.q.weight, t.k.weight, t.v.weight, t.o.weight, t.gate.weight, t.up.weight, t.down.weight},
        {kNormal, kNormal, kFine, kNormal, ffn, ffn, ffn});
    const auto projection = [&](size_t at, const ProjectionTensors& tensors) {
      return Projection{std::move(m[at]), vector(tensors.bias)};
    };
    return {.attention_norm = std::move(attention_norm),
            .q = projection(0, t.q),
            .k = projection(1, t.k),
            .v = projection(2, t.v),
            .o = projection(3, t.o),
            .ffn_norm = vector(t.ffn_norm),
            .gate = projection(4, t.gate),
            .up = projection(5, t.up),
            .down = projection(6, t.down)};
  }

  int64_t bytes_read() const { return read_ + cache_.raw_bytes_read(); }
  int64_t bytes_held() const { return held_; }

 private:
  void pack(const GgufTensor& tensor, PackedMatrix& matrix) {
    advise_pages(tensor.bytes, MADV_WILLNEED);
    matrix.fill(tensor.bytes, team_);
    read_ += static_cast<int64_t>(tensor.bytes.size());
  }
  void count(const GgufTensor& tensor) {
    done_ += static_cast<int64_t>(tensor.bytes.size());
    if (progress_) progress_(done_, bytes_total_);
  }

  const StageSpec& spec_;
  kernels::cpu::Isa isa_;
  kernels::cpu::Team& team_;
  kernels::cpu::PanelArena arena_;  // matrices lie in the order in which a step reads them
  PanelCache& cache_;
  const LoadProgress& progress_;
  int64_t bytes_total_;
  int64_t done_ = 0;
  int64_t read_ = 0;
  int64_t held_ = 0;
};

int64_t bytes_to_load(const LlamaTensors& tensors, const StageSpec& spec) {
  int64_t total = 0;
  for (int32_t i = spec.layer_begin; i < spec.layer_end; ++i) {
    for (const GgufTensor* tensor : tensors.layers[static_cast<size_t>(i)].all()) {
      total += static_cast<int64_t>(tensor->bytes.size());
    }
  }
  if (spec.has_head) {
    total += static_cast<int64_t>(tensors.output_norm->bytes.size() + tensors.output->bytes.size());
  }
  return total;
}

}  // namespace

StageWeights load_stage_weights(const LlamaTensors& tensors, const StageSpec& spec,
                                kernels::cpu::Isa isa, kernels::cpu::Team& team, PanelCache& cache,
                                const LoadProgress& progress) {
  Loader loader(spec, isa, team, cache, progress, bytes_to_load(tensors, spec));
  StageWeights weights;
  if (spec.has_embedding) weights.embedding = tensors.embedding;
  const auto num_layers = static_cast<int32_t>(tensors.layers.size());
  for (int32_t i = spec.layer_begin; i < spec.layer_end; ++i)
    weights.layers.push_back(
        loader.layer(tensors.layers[static_cast<size_t>(i)], i, i == 0 || i + 1 == num_layers));
  if (spec.has_head) {
    weights.output_norm = loader.vector(tensors.output_norm);
    weights.head.emplace(
        std::move(loader.matrices("head", {tensors.output}, {ActivationPrecision::fine}).front()));
  }
  weights.bytes_read = loader.bytes_read();
  weights.bytes_held = loader.bytes_held();
  return weights;
}

}  // namespace chainpump::models
