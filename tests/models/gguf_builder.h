// Writes GGUF bytes for tests, well-formed or not: every field can be given a value that lies. One
// thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/byte_io.h"

namespace chainpump::models {

enum GgufType : uint32_t {
  kGgufUint8 = 0,
  kGgufInt32 = 5,
  kGgufUint32 = 4,
  kGgufFloat32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufUint64 = 10
};

class GgufBuilder {
 public:
  GgufBuilder& head(uint32_t version, uint64_t num_tensors, uint64_t num_keys) {
    ByteWriter(bytes_).write_string("GGUF");
    ByteWriter(bytes_).write(version);
    ByteWriter(bytes_).write(num_tensors);
    ByteWriter(bytes_).write(num_keys);
    return *this;
  }
  GgufBuilder& string(std::string_view text) {
    ByteWriter(bytes_).write(uint64_t{text.size()});
    return raw(text);
  }
  GgufBuilder& raw(std::string_view bytes) {
    ByteWriter(bytes_).write_string(bytes);
    return *this;
  }
  template <typename T>
  GgufBuilder& number(T value) {
    ByteWriter(bytes_).write(value);
    return *this;
  }
  GgufBuilder& key(std::string_view name, uint32_t type) { return string(name).number(type); }
  GgufBuilder& text_key(std::string_view name, std::string_view value) {
    return key(name, kGgufString).string(value);
  }
  GgufBuilder& array_key(std::string_view name, uint32_t type, uint64_t count) {
    return key(name, kGgufArray).number(type).number(count);
  }
  GgufBuilder& strings_key(std::string_view name, const std::vector<std::string_view>& values) {
    array_key(name, kGgufString, values.size());
    for (const std::string_view value : values) string(value);
    return *this;
  }
  template <typename T>
  GgufBuilder& numbers_key(std::string_view name, uint32_t type, const std::vector<T>& values) {
    array_key(name, type, values.size());
    for (const T value : values) number(value);
    return *this;
  }
  GgufBuilder& tensor(std::string_view name, std::initializer_list<uint64_t> dims, uint32_t type,
                      uint64_t offset) {
    string(name).number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) number(dim);
    return number(type).number(offset);
  }
  /// Pads to `alignment`, then `count` bytes that count up from 0.
  GgufBuilder& data(size_t count, size_t alignment = 32) {
    while (bytes_.size() % alignment != 0) number(uint8_t{0});
    for (size_t i = 0; i < count; ++i) number(static_cast<uint8_t>(i));
    return *this;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace chainpump::models
