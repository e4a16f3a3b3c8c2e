// Bounds-checked little-endian reading and writing, for everything that comes from a file or a
// socket. A reader that once ran out stays failed, so that a decoder may read on and ask `ok()`
// once at the end; until then it yields zeros and empty spans. One thread at a time.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace chainpump {

static_assert(std::endian::native == std::endian::little);

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T read() {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    T value{};
    const std::span<const std::byte> raw = take(sizeof(T));
    if (raw.size() == sizeof(T)) std::memcpy(&value, raw.data(), sizeof(T));
    return value;
  }
  /// The next `n` bytes, or an empty span (and failure) if there are fewer.
  std::span<const std::byte> take(uint64_t n) {
    if (failed_ || n > remaining()) {
      failed_ = true;
      return {};
    }
    const auto part = bytes_.subspan(offset_, static_cast<size_t>(n));
    offset_ += static_cast<size_t>(n);
    return part;
  }
  std::string_view take_string(uint64_t n) {
    const auto part = take(n);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  void fail() { failed_ = true; }
  bool ok() const { return !failed_; }
  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
  bool failed_ = false;
};

/// Appends to a byte vector owned by the caller.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<std::byte>& out) : out_(out) {}

  template <typename T>
  void write(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    write_bytes({reinterpret_cast<const std::byte*>(&value), sizeof(T)});
  }
  void write_bytes(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  void write_string(std::string_view text) {
    write_bytes(std::as_bytes(std::span(text.data(), text.size())));
  }

 private:
  std::vector<std::byte>& out_;
};

}  // namespace chainpump
