// UTF-8 and character classes, as the pre-tokenizers' regular expressions see them. Decoding trusts
// its input: check text from outside with find_invalid_utf8 first. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chainpump::models {

struct Utf8Scan {
  size_t bytes = 0;       // of the longest prefix that begins some valid sequence, at least 1
  bool complete = false;  // it is a whole valid sequence
  bool starved = false;   // it could still become one with more bytes
};

/// The sequence at the front of `text` (not empty), by table 3-7 of the Unicode Standard: no
/// overlong forms, no surrogates. What is not valid ends where the standard's "maximal subpart"
/// ends, so that it counts as one U+FFFD.
Utf8Scan scan_utf8(std::string_view text);

/// Offset of the first byte that is not part of a valid sequence, or npos.
size_t find_invalid_utf8(std::string_view text);

/// Bytes of the sequence that this lead byte of valid text begins.
constexpr uint32_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

struct CodePoint {
  uint32_t value;
  uint32_t bytes;
};

/// The first code point of valid, non-empty text.
constexpr CodePoint decode_utf8(const char* text) {
  const auto at = [&](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t length = utf8_length(*text);
  switch (length) {
    case 1:
      return {at(0), 1};
    case 2:
      return {(at(0) & 0x1f) << 6 | (at(1) & 0x3f), 2};
    case 3:
      return {(at(0) & 0x0f) << 12 | (at(1) & 0x3f) << 6 | (at(2) & 0x3f), 3};
    default:
      return {(at(0) & 0x07) << 18 | (at(1) & 0x3f) << 12 | (at(2) & 0x3f) << 6 | (at(3) & 0x3f),
              4};
  }
}

/// letter: \p{L}. number: \p{N}. space: \s, that is White_Space. Combining marks are `other`.
enum class CharClass : uint8_t { other, letter, number, space };

/// Beyond ASCII, from utf8proc's tables.
CharClass wide_char_class(uint32_t code_point);

inline constexpr std::array<CharClass, 128> kAsciiClass = [] {
  std::array<CharClass, 128> table{};
  for (size_t c = '0'; c <= '9'; ++c) table[c] = CharClass::number;
  for (size_t c = 'A'; c <= 'Z'; ++c) table[c] = table[c + 32] = CharClass::letter;
  for (size_t c = '\t'; c <= '\r'; ++c) table[c] = CharClass::space;
  table[' '] = CharClass::space;
  return table;
}();

inline CharClass char_class(uint32_t code_point) {
  return code_point < 128 ? kAsciiClass[code_point] : wide_char_class(code_point);
}

}  // namespace chainpump::models
