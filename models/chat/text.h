// Strings of a template with their origin: which bytes came out of a chat message. Every operation
// on strings goes through here, so that the origin is never lost. Plain values; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chainpump::models::chat {

struct Span {
  size_t begin = 0;  // bytes, [begin, end)
  size_t end = 0;
};

struct Text {
  std::string bytes;        // UTF-8
  std::vector<Span> marks;  // from messages; in order, apart, none empty
  bool is_safe = false;     // HTML by the safe filter: what is added to it by + gets escaped

  Text() = default;
  explicit Text(std::string_view plain) : bytes(plain) {}
  static Text marked(std::string_view from_message);

  void append(std::string_view more, bool is_marked = false);
  void append(const Text& other) { append(other, 0, other.bytes.size()); }
  void append(const Text& other, size_t begin, size_t end);
  bool is_marked_at(size_t offset) const;
};

/// The character (code point) that begins at `offset`, and its bytes; a broken sequence counts as
/// one byte.
struct Character {
  uint32_t code_point = 0;
  size_t bytes = 1;
};
Character character_at(std::string_view text, size_t offset);
void append_utf8(uint32_t code_point, std::string& out);
size_t count_characters(std::string_view text);
/// Byte offset of the character with this index; the text's size if there are fewer.
size_t offset_of_character(std::string_view text, size_t index);

/// As std::string_view::find, but linear in the haystack for long needles too.
size_t find_bytes(std::string_view haystack, std::string_view needle, size_t from = 0);

/// As Python's str.isspace.
bool is_space(uint32_t code_point);
/// What str.strip() leaves of [0, size), as offsets. `characters` empty: whitespace.
Span strip(std::string_view text, std::string_view characters, bool left, bool right);

Text to_upper(const Text& text);
Text to_lower(const Text& text);
/// As str.capitalize, and Jinja's title filter (`words`: every word's first letter).
Text capitalize(const Text& text, bool words);
/// With & < > " and ' as HTML entities.
Text escape_html(const Text& text);
/// All of `from` by `to`, or the first `count_max` of them.
Text replace(const Text& text, std::string_view from, const Text& to, size_t count_max);

}  // namespace chainpump::models::chat
