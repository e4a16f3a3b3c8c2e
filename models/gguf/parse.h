// Reads a GGUF header out of untrusted bytes into a GgufFile. Private to this folder. Each size is
// compared with what the file still holds before memory is taken for it; the arrays of all keys
// together are limited, so that memory stays within a small multiple of the file's size and under a
// fixed bound. One thread, once per object.
#pragma once

#include "base/byte_io.h"
#include "models/gguf/gguf.h"

namespace chainpump::models {

class GgufParser {
 public:
  /// `mapped`: `bytes` are a file's mapping, which the kernel does not read ahead by itself.
  GgufParser(std::span<const std::byte> bytes, std::string name, bool mapped)
      : bytes_(bytes), reader_(bytes), name_(std::move(name)), mapped_(mapped) {}

  Result<GgufFile> run();

 private:
  void read_ahead(uint64_t more);
  Status read_head(uint64_t& num_tensors, uint64_t& num_keys);
  Status read_key_value();
  Result<GgufValue> read_value(uint32_t type);
  Result<GgufValue> read_array();
  Result<std::string_view> read_string();
  Status read_alignment();
  Status read_tensor(uint64_t index);
  Status read_dims(GgufTensor& tensor, uint64_t& elements);
  Status place_tensors();
  Status place_tensor(size_t index);
  Status check_overlaps();

  template <typename... Args>
  Error bad(fmt::format_string<Args...> text, Args&&... args) const {
    return make_error(ErrorCode::bad_file, "{}: {}", name_,
                      fmt::format(text, std::forward<Args>(args)...));
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  std::string name_;
  bool mapped_;
  uint64_t ahead_ = 0;  // the offset up to which the kernel was asked to read
  std::string place_;   // what is being read, for messages
  uint64_t array_elements_ = 0;
  std::vector<uint64_t> offsets_;  // of each tensor, from the start of the data
  GgufFile file_;
};

}  // namespace chainpump::models
