#include "models/gguf/gguf.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "models/gguf/pages.h"
#include "models/gguf/parse.h"

namespace chainpump::models {
namespace {

// Multiply and fold, eight bytes at a time.
uint64_t mix(uint64_t hash, std::span<const std::byte> bytes) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    hash = (hash ^ word) * kOdd;
    hash ^= hash >> 29;
  }
  return hash;
}

template <typename T>
const T* find_as(const std::map<std::string_view, GgufValue>& metadata, std::string_view key) {
  const auto it = metadata.find(key);
  return it == metadata.end() ? nullptr : std::get_if<T>(&it->second);
}

}  // namespace

int64_t GgufTensor::rows() const {
  int64_t rows = 1;
  for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
  return rows;
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(path));
  const std::span<const std::byte> bytes = mapped.bytes();
  // No reading ahead by the kernel: it would take megabytes of other stages' weights with it. The
  // parser asks for the header's pages, the caller for those of its tensors.
  advise_pages(bytes, MADV_RANDOM);
  ASSIGN_OR_RETURN(GgufFile file, GgufParser(bytes, path.string(), true).run());
  file.path_ = path;
  file.file_ = std::move(mapped);
  return file;
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string_view name) {
  ASSIGN_OR_RETURN(GgufFile file, GgufParser(bytes, std::string(name), false).run());
  file.path_ = name;
  return file;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  if (const auto* text = find_as<std::string_view>(metadata_, key)) return *text;
  return std::nullopt;
}

std::optional<int64_t> GgufFile::find_int(std::string_view key) const {
  if (const auto* value = find_as<int64_t>(metadata_, key)) return *value;
  const auto* value = find_as<uint64_t>(metadata_, key);
  if (value == nullptr || *value > uint64_t{std::numeric_limits<int64_t>::max()})
    return std::nullopt;
  return static_cast<int64_t>(*value);
}

std::optional<double> GgufFile::find_float(std::string_view key) const {
  if (const auto* value = find_as<double>(metadata_, key)) return *value;
  if (const auto* value = find_as<uint64_t>(metadata_, key)) return static_cast<double>(*value);
  if (const auto* value = find_as<int64_t>(metadata_, key)) return static_cast<double>(*value);
  return std::nullopt;
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  if (const auto* value = find_as<bool>(metadata_, key)) return *value;
  return std::nullopt;
}

const std::vector<std::string_view>* GgufFile::find_strings(std::string_view key) const {
  return find_as<std::vector<std::string_view>>(metadata_, key);
}

const std::vector<int64_t>* GgufFile::find_ints(std::string_view key) const {
  return find_as<std::vector<int64_t>>(metadata_, key);
}

const std::vector<double>* GgufFile::find_floats(std::string_view key) const {
  return find_as<std::vector<double>>(metadata_, key);
}

uint64_t GgufFile::fingerprint() const {
  constexpr uint64_t kSamples = 8;
  constexpr uint64_t kSampleBytes = 64;
  constexpr uint64_t kBytesPerSample = uint64_t{2} << 20;  // so that sampling stays below 1/500
  uint64_t hash = mix(file_bytes_, bytes_.first(header_bytes_));
  const std::span<const std::byte> weights = bytes_.subspan(header_bytes_);
  const uint64_t samples =
      std::min(kSamples, (weights.size() + kBytesPerSample - 1) / kBytesPerSample);
  for (uint64_t i = 0; i < samples; ++i) {
    // The middle of each of `samples` equal parts.
    const uint64_t offset = weights.size() / (2 * samples) * (2 * i + 1);
    hash = mix(hash, weights.subspan(offset, std::min(kSampleBytes, weights.size() - offset)));
  }
  hash *= 0xD6E8FEB86659FD93;
  return hash ^ hash >> 32;
}

void GgufFile::read_ahead(std::span<const std::byte> part) const {
  if (file_ && !part.empty()) advise_pages(part, MADV_WILLNEED);
}

void GgufFile::release_pages(std::span<const std::byte> part) const {
  if (file_ && !part.empty()) drop_pages(part);
}

}  // namespace chainpump::models
