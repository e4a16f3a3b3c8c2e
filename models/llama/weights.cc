#include "models/llama/weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

namespace chainpump::models {
namespace {

using kernels::cpu::ActivationPrecision;
using kernels::cpu::PackedMatrix;

/// Tells the kernel about the whole pages that `bytes` touches. Advice only: failure is no harm.
void advise(std::span<const std::byte> bytes, int advice) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size());
  static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, advice));
}

class Loader {
 public:
  Loader(const StageSpec& spec, kernels::cpu::Isa isa, kernels::cpu::Team& team,
         const LoadProgress& progress, int64_t bytes_total)
      : spec_(spec), isa_(isa), team_(team), progress_(progress), bytes_total_(bytes_total) {}

  std::vector<float> vector(const GgufTensor* tensor) {
    if (tensor == nullptr) return {};
    std::vector<float> values = read_f32(*tensor);
    held_ += static_cast<int64_t>(tensor->bytes.size());
    count(*tensor);
    return values;
  }

  Result<PackedMatrix> matrix(const GgufTensor& tensor, ActivationPrecision precision) {
    if (spec_.exact_activations) precision = ActivationPrecision::exact;
    advise(tensor.bytes, MADV_WILLNEED);
    Result<PackedMatrix> packed = PackedMatrix::pack(isa_, tensor.type, precision, tensor.rows(),
                                                     tensor.cols(), tensor.bytes, team_, &arena_);
    if (!packed.ok()) {
      return make_error(packed.error().code, "tensor {}: {}", tensor.name, packed.error().message);
    }
    // A private read-only mapping of a file: what is dropped here comes back from the file.
    advise(tensor.bytes, MADV_DONTNEED);
    held_ += packed->bytes();
    count(tensor);
    return packed;
  }

  Result<Projection> projection(const ProjectionTensors& tensors, ActivationPrecision precision) {
    ASSIGN_OR_RETURN(PackedMatrix packed, matrix(*tensors.weight, precision));
    return Projection{std::move(packed), vector(tensors.bias)};
  }

  // What K and V lose to rounding is read again by every later token, and what the head loses
  // nothing averages out: on the real model 16 bits there take the divergence from float32
  // from 4.3e-3 to 2.1e-3 nats for a twentieth more multiplications.
  Result<LayerWeights> layer(const LayerTensors& t) {
    std::vector<float> attention_norm = vector(t.attention_norm);
    ASSIGN_OR_RETURN(Projection q, projection(t.q, ActivationPrecision::normal));
    ASSIGN_OR_RETURN(Projection k, projection(t.k, ActivationPrecision::fine));
    ASSIGN_OR_RETURN(Projection v, projection(t.v, ActivationPrecision::fine));
    ASSIGN_OR_RETURN(Projection o, projection(t.o, ActivationPrecision::normal));
    std::vector<float> ffn_norm = vector(t.ffn_norm);
    ASSIGN_OR_RETURN(Projection gate, projection(t.gate, ActivationPrecision::normal));
    ASSIGN_OR_RETURN(Projection up, projection(t.up, ActivationPrecision::normal));
    ASSIGN_OR_RETURN(Projection down, projection(t.down, ActivationPrecision::normal));
    return LayerWeights{
        std::move(attention_norm), std::move(q),    std::move(k),  std::move(v),   std::move(o),
        std::move(ffn_norm),       std::move(gate), std::move(up), std::move(down)};
  }

  int64_t bytes_read() const { return read_; }
  int64_t bytes_held() const { return held_; }

 private:
  void count(const GgufTensor& tensor) {
    read_ += static_cast<int64_t>(tensor.bytes.size());
    if (progress_) progress_(read_, bytes_total_);
  }

  const StageSpec& spec_;
  kernels::cpu::Isa isa_;
  kernels::cpu::Team& team_;
  kernels::cpu::PanelArena arena_;  // matrices lie in the order in which a step reads them
  const LoadProgress& progress_;
  int64_t bytes_total_;
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

Result<StageWeights> load_stage_weights(const LlamaTensors& tensors, const StageSpec& spec,
                                        kernels::cpu::Isa isa, kernels::cpu::Team& team,
                                        const LoadProgress& progress) {
  Loader loader(spec, isa, team, progress, bytes_to_load(tensors, spec));
  StageWeights weights;
  if (spec.has_embedding) weights.embedding = tensors.embedding;
  for (int32_t i = spec.layer_begin; i < spec.layer_end; ++i) {
    ASSIGN_OR_RETURN(LayerWeights layer, loader.layer(tensors.layers[static_cast<size_t>(i)]));
    weights.layers.push_back(std::move(layer));
  }
  if (spec.has_head) {
    weights.output_norm = loader.vector(tensors.output_norm);
    ASSIGN_OR_RETURN(PackedMatrix head, loader.matrix(*tensors.output, ActivationPrecision::fine));
    weights.head.emplace(std::move(head));
  }
  weights.bytes_read = loader.bytes_read();
  weights.bytes_held = loader.bytes_held();
  return weights;
}

}  // namespace chainpump::models
