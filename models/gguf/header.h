// The header of a GGUF v3 file that is about to be written: keys copied from another file or set
// anew, then the tensors' table with their places. Writes no weights. One thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "models/gguf/gguf.h"

namespace chainpump::models {

class GgufHeader {
 public:
  /// Takes over all keys of `file`, as they stand there, and its alignment.
  explicit GgufHeader(const GgufFile& file);

  /// Sets an unsigned 32-bit key, in the place of the one that there is or at the end.
  void set_key(std::string_view name, uint32_t value);
  /// In the order in which the data will follow. `dims`: row length first.
  void add_tensor(std::string_view name, const std::vector<int64_t>& dims, DType type);

  /// Everything before the first tensor's data, padded to the alignment.
  std::vector<std::byte> bytes() const;
  /// Of the padding after so many bytes of data.
  uint64_t padding(uint64_t data_bytes) const;
  /// Header, data and the padding after each tensor.
  uint64_t file_bytes() const;

 private:
  struct Key {
    std::string_view name;
    std::vector<std::byte> bytes;
  };
  uint64_t alignment_;
  std::vector<Key> keys_;
  uint64_t num_tensors_ = 0;
  uint64_t data_bytes_ = 0;
  std::vector<std::byte> tensors_;
};

}  // namespace chainpump::models
