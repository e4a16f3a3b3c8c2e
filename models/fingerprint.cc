#include "models/fingerprint.h"

#include <algorithm>
#include <cstring>

namespace chainpump::models {
namespace {

constexpr size_t kSampledTensors = 16;
constexpr size_t kSampleBytes = 64;

/// FNV-1a over 8-byte words with a shift, so that high bits reach the low ones.
uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x100000001b3u;
  return hash ^ hash >> 29;
}

uint64_t mix_bytes(uint64_t hash, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t n = std::min(bytes.size(), sizeof(word));
    std::memcpy(&word, bytes.data(), n);
    hash = mix(hash, word);
    bytes = bytes.subspan(n);
  }
  return hash;
}

}  // namespace

uint64_t head_bytes(std::span<const std::byte> bytes, const GgufFile& file) {
  uint64_t head = bytes.size();
  for (const GgufTensor& tensor : file.tensors()) head = std::min(head, tensor.file_offset);
  return head;
}

std::vector<std::span<const std::byte>> fingerprint_samples(const GgufFile& file) {
  std::vector<std::span<const std::byte>> samples;
  const size_t step = std::max<size_t>(1, file.tensors().size() / kSampledTensors);
  for (size_t i = 0; i < file.tensors().size(); i += step) {
    const std::span<const std::byte> data = file.tensors()[i].bytes;
    const size_t n = std::min(kSampleBytes, data.size());
    samples.push_back(data.subspan((data.size() - n) / 2, n));
  }
  return samples;
}

uint64_t model_fingerprint(std::span<const std::byte> bytes, const GgufFile& file) {
  uint64_t hash = mix(0xcbf29ce484222325u, bytes.size());
  hash = mix_bytes(hash, bytes.first(head_bytes(bytes, file)));
  for (const std::span<const std::byte> sample : fingerprint_samples(file))
    hash = mix_bytes(hash, sample);
  return hash;
}

}  // namespace chainpump::models
