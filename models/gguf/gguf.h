// GGUF v2/v3 files: metadata and tensor table, every size checked against the file before use.
// Opening reads the header only; weights stay untouched until somebody takes their bytes, and the
// kernel is told not to read ahead, so that a rank costs the pages of its own tensors and no
// others. Does not decode weights. Format:
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Immutable after open; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/result.h"

namespace chainpump::models {

/// Arrays are kept as vectors of the widest fitting kind (bools as 0 and 1); strings as views into
/// the file, with whatever bytes the file holds.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string_view, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string_view name;
  DType type = DType::f32;
  std::vector<int64_t> dims;  // as in the file: dims[0] is the row length (cols), dims[1] rows
  std::span<const std::byte> bytes;  // within the mapping
  uint64_t file_offset = 0;          // of bytes[0]
  int64_t cols() const { return dims.empty() ? 0 : dims[0]; }
  int64_t rows() const;  // product of the dimensions past the first; 1 for a vector
};

/// A key with its value as they stand in the file: length and name, type, value.
struct GgufRecord {
  std::string_view key;
  std::span<const std::byte> bytes;  // within the mapping
};

class GgufFile {
 public:
  /// not_found or bad_file (names the key or tensor and the offset). A v1 or big-endian file is
  /// bad_file too, with that said.
  static Result<GgufFile> open(const std::filesystem::path& path);
  /// The same over bytes that the caller keeps alive; for tests and fuzzing.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string_view name);

  uint32_t version() const { return version_; }
  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string_view, GgufValue>& metadata() const { return metadata_; }
  /// In the file's order, for writing them as they are.
  const std::vector<GgufRecord>& records() const { return records_; }
  /// In the file's order.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// What every tensor's place in the file is a multiple of: a power of two.
  uint64_t alignment() const { return alignment_; }
  /// Everything before the tensor data: what opening reads.
  uint64_t header_bytes() const { return header_bytes_; }
  uint64_t file_bytes() const { return file_bytes_; }

  const GgufTensor* find_tensor(std::string_view name) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<int64_t> find_int(std::string_view key) const;   // any integer kind that fits
  std::optional<double> find_float(std::string_view key) const;  // integers too
  std::optional<bool> find_bool(std::string_view key) const;
  const std::vector<std::string_view>* find_strings(std::string_view key) const;
  const std::vector<int64_t>* find_ints(std::string_view key) const;
  const std::vector<double>* find_floats(std::string_view key) const;

  /// A cheap hash that tells models apart, equal on every machine. Covers all metadata, the tensor
  /// table and the file's size, and of the weights only 64 bytes at each of up to eight fixed
  /// places: it finds a different or retrained model, not a flipped bit. Touches those eight pages.
  uint64_t fingerprint() const;

  /// Asks the kernel to read `part` (of some tensor's bytes) ahead, and nothing beyond its pages.
  void read_ahead(std::span<const std::byte> part) const;
  /// Gives back the memory of the pages that lie wholly within `part`, for after its repacking.
  /// Still readable: the file would be read again. Both do nothing after parse().
  void release_pages(std::span<const std::byte> part) const;

 private:
  friend class GgufParser;
  GgufFile() = default;

  std::filesystem::path path_;
  std::optional<MappedFile> file_;
  std::span<const std::byte> bytes_;
  uint32_t version_ = 0;
  uint64_t header_bytes_ = 0;
  uint64_t file_bytes_ = 0;
  uint64_t alignment_ = 32;
  std::map<std::string_view, GgufValue> metadata_;
  std::vector<GgufRecord> records_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

/// `text` from a file, cut to a sensible length, with everything that is not printable ASCII
/// escaped: fit for messages and terminals.
std::string printable(std::string_view text);

}  // namespace chainpump::models
