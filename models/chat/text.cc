#include "models/chat/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

namespace chainpump::models::chat {

Text Text::marked(std::string_view from_message) {
  Text text;
  text.append(from_message, true);
  return text;
}

void Text::append(std::string_view more, bool is_marked) {
  const size_t begin = bytes.size();
  bytes += more;
  if (!is_marked || more.empty()) return;
  if (!marks.empty() && marks.back().end == begin) {
    marks.back().end = bytes.size();
  } else {
    marks.push_back({begin, bytes.size()});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  auto mark = std::upper_bound(other.marks.begin(), other.marks.end(), begin,
                               [](size_t offset, const Span& s) { return offset < s.end; });
  const std::string_view bytes_of_other = other.bytes;
  for (size_t at = begin; at < end;) {
    const bool inside = mark != other.marks.end() && mark->begin <= at;
    size_t until = end;
    if (mark != other.marks.end()) until = std::min(end, inside ? mark->end : mark->begin);
    append(bytes_of_other.substr(at, until - at), inside);
    if (inside) ++mark;
    at = until;
  }
}

bool Text::is_marked_at(size_t offset) const {
  const auto mark = std::upper_bound(marks.begin(), marks.end(), offset,
                                     [](size_t at, const Span& s) { return at < s.end; });
  return mark != marks.end() && mark->begin <= offset;
}

Character character_at(std::string_view text, size_t offset) {
  const auto first = static_cast<unsigned char>(text[offset]);
  if (first < 0x80) return {first, 1};
  utf8proc_int32_t code_point = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset,
                                  static_cast<utf8proc_ssize_t>(text.size() - offset), &code_point);
  if (n <= 0) return {0xFFFD, 1};
  return {static_cast<uint32_t>(code_point), static_cast<size_t>(n)};
}

void append_utf8(uint32_t code_point, std::string& out) {
  utf8proc_uint8_t buffer[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).bytes) ++count;
  return count;
}

size_t offset_of_character(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += character_at(text, at).bytes;
  return at;
}

size_t find_bytes(std::string_view haystack, std::string_view needle, size_t from) {
  if (from > haystack.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found =
      memmem(haystack.data() + from, haystack.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - haystack.data());
}

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

Span strip(std::string_view text, std::string_view characters, bool left, bool right) {
  const auto goes = [&](size_t at, const Character& c) {
    if (characters.empty()) return is_space(c.code_point);
    return characters.find(text.substr(at, c.bytes)) != std::string_view::npos;
  };
  Span span{0, text.size()};
  while (left && span.begin < span.end) {
    const Character c = character_at(text, span.begin);
    if (!goes(span.begin, c)) break;
    span.begin += c.bytes;
  }
  while (right && span.end > span.begin) {
    size_t at = span.end - 1;
    while (at > span.begin && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
    if (!goes(at, character_at(text, at))) break;
    span.end = at;
  }
  return span;
}

namespace {

template <typename Change>
Text change_characters(const Text& text, Change change) {
  Text out;
  for (size_t at = 0; at < text.bytes.size();) {
    const Character c = character_at(text.bytes, at);
    std::string bytes;
    append_utf8(static_cast<uint32_t>(change(static_cast<utf8proc_int32_t>(c.code_point))), bytes);
    out.append(bytes, text.is_marked_at(at));
    at += c.bytes;
  }
  return out;
}

}  // namespace

Text to_upper(const Text& text) { return change_characters(text, utf8proc_toupper); }
Text to_lower(const Text& text) { return change_characters(text, utf8proc_tolower); }

Text capitalize(const Text& text, bool words) {
  bool begins = true;
  return change_characters(text, [&](utf8proc_int32_t c) {
    const utf8proc_int32_t changed = begins ? utf8proc_totitle(c) : utf8proc_tolower(c);
    // Jinja's title filter takes a word to begin after these.
    begins = words && (is_space(static_cast<uint32_t>(c)) || c == '-' || c == '(' || c == '{' ||
                       c == '[' || c == '<');
    return changed;
  });
}

Text escape_html(const Text& text) {
  static constexpr std::string_view kSpecial = "&<>\"'";
  static constexpr std::string_view kEntities[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
  Text out;
  out.is_safe = true;
  for (size_t at = 0; at < text.bytes.size();) {
    const size_t end = std::min(text.bytes.find_first_of(kSpecial, at), text.bytes.size());
    out.append(text, at, end);
    if (end == text.bytes.size()) break;
    out.append(kEntities[kSpecial.find(text.bytes[end])], text.is_marked_at(end));
    at = end + 1;
  }
  return out;
}

Text replace(const Text& text, std::string_view from, const Text& to, size_t count_max) {
  Text out;
  size_t at = 0;
  for (size_t n = 0; n < count_max; ++n) {
    if (from.empty()) {  // between all characters, as Python does
      out.append(to);
      if (at >= text.bytes.size()) return out;
      const size_t next = at + character_at(text.bytes, at).bytes;
      out.append(text, at, next);
      at = next;
      continue;
    }
    const size_t found = find_bytes(text.bytes, from, at);
    if (found == std::string::npos) break;
    out.append(text, at, found);
    out.append(to);
    at = found + from.size();
  }
  out.append(text, at, text.bytes.size());
  return out;
}

}  // namespace chainpump::models::chat
