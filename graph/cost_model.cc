#include "graph/cost_model.h"

#include <algorithm>

namespace chainpump::graph {

MachineProfile nominal_machine(int num_cores, int64_t memory_bytes) {
  MachineProfile machine;
  for (int i = 0; i < num_cores; ++i) machine.cores.push_back(i);
  machine.memory_bytes = memory_bytes;
  machine.read_bytes_per_s = {16e9, 24e9};
  machine.int8_ops_per_s = 280e9;
  machine.bf16_ops_per_s = 150e9;
  machine.f32_ops_per_s = 80e9;
  return machine;
}

double weights_seconds(const WeightBytes& weights, const MachineProfile& machine, int threads,
                       int num_tokens, bool exact) {
  const size_t used = static_cast<size_t>(std::max(threads, 1));
  const double read_rate =
      machine.read_bytes_per_s.empty()
          ? 1e9
          : machine.read_bytes_per_s[std::min(used, machine.read_bytes_per_s.size()) - 1];
  double multiply_s = 0;
  for (const auto& [type, bytes] : weights.by_type) {
    const DTypeInfo& form = info(type);
    const double elements = static_cast<double>(bytes) / form.block_bytes * form.block_elements;
    const bool is_float = type == DType::f32 || type == DType::f16;
    const double rate = exact || is_float     ? machine.f32_ops_per_s
                        : type == DType::bf16 ? machine.bf16_ops_per_s
                                              : machine.int8_ops_per_s;
    multiply_s += 2 * elements * num_tokens / (std::max(rate, 1.0) * static_cast<double>(used));
  }
  return std::max(static_cast<double>(weights.total) / std::max(read_rate, 1.0), multiply_s);
}

double embedding_seconds(const ModelProfile& model, const MachineProfile& machine, int num_tokens) {
  const double row = static_cast<double>(model.embedding.total) / model.vocabulary_size;
  const double rate = machine.read_bytes_per_s.empty() ? 1e9 : machine.read_bytes_per_s[0];
  return row * num_tokens / std::max(rate, 1.0);
}

}  // namespace chainpump::graph
