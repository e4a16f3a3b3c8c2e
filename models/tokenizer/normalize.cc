#include "models/tokenizer/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::models {
namespace {

// utf8proc_decompose would reorder marks by insertion, which hostile text makes quadratic: so the
// characters are decomposed one by one here, and their marks sorted.
std::vector<utf8proc_int32_t> decompose(std::string_view text) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text.data() + at);
    at += point.bytes;
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(point.value), parts, 32, UTF8PROC_DECOMPOSE, &boundary);
    CHECK_MSG(count > 0 && count <= 32, "U+{:04X} decomposes into {}", point.value, count);
    points.insert(points.end(), parts, parts + count);
  }
  return points;
}

utf8proc_propval_t mark_class(utf8proc_int32_t point) {
  return point < 0x300 ? utf8proc_propval_t{0} : utf8proc_get_property(point)->combining_class;
}

void sort_marks(std::vector<utf8proc_int32_t>& points) {
  for (auto begin = points.begin(); begin != points.end();) {
    if (mark_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, points.end(), [](auto point) { return mark_class(point) == 0; });
    std::stable_sort(begin, end, [](auto a, auto b) { return mark_class(a) < mark_class(b); });
    begin = end;
  }
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& buffer) {
  // U+0300 is CC 80: below it every character is its own form C.
  const auto below = [](char c) { return static_cast<unsigned char>(c) < 0xCC; };
  if (std::all_of(text.begin(), text.end(), below)) return text;
  std::vector<utf8proc_int32_t> points = decompose(text);
  sort_marks(points);
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  CHECK(length >= 0);
  buffer.clear();
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t count = utf8proc_encode_char(points[static_cast<size_t>(i)], bytes);
    buffer.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
  }
  return buffer;
}

}  // namespace chainpump::models
