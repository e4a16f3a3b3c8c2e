// Writes well-formed GGUF v3 files for tests (layout: the document named in models/gguf/gguf.h).
// Files that lie are tests/models/gguf_builder.h's business. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace chainpump::fakes {

class GgufWriter {
 public:
  void key(std::string_view name, uint32_t value);
  void key(std::string_view name, float value);
  void key(std::string_view name, std::string_view value);
  void key(std::string_view name, const std::vector<std::string>& values);
  void key(std::string_view name, const std::vector<int32_t>& values);
  /// `dims`: row length first. `bytes` in the type's layout.
  void tensor(std::string_view name, std::vector<int64_t> dims, DType type,
              std::vector<std::byte> bytes);
  /// CHECKs that the file could be written.
  void write(const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    std::vector<int64_t> dims;
    DType type;
    std::vector<std::byte> bytes;
  };
  std::vector<std::byte> keys_;
  uint64_t num_keys_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace chainpump::fakes
