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
void decompose(std::string_view text, std::vector<utf8proc_int32_t>& points) {
  points.clear();
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

// Common ranges whose characters are their own form C whatever surrounds them: starters that do not
// change alone and compose with nothing before them (NFC_Quick_Check = Yes in the Unicode Character
// Database; tested against utf8proc). Others take the long way.
constexpr struct {
  uint32_t first;
  uint32_t last;
} kInert[] = {{0x0388, 0x03FF}, {0x0400, 0x0482}, {0x048A, 0x052F}, {0x0531, 0x0586},
              {0x05D0, 0x05EA}, {0x0621, 0x064A}, {0x0904, 0x0939}, {0x093D, 0x094C},
              {0x0E01, 0x0E37}, {0x0E3F, 0x0E47}, {0x10D0, 0x10FF}, {0x1E00, 0x1EFF},
              {0x2010, 0x2027}, {0x2030, 0x205E}, {0x20A0, 0x20C0}, {0x2190, 0x2328},
              {0x2460, 0x2AD0}, {0x3000, 0x3029}, {0x3041, 0x3096}, {0x30A1, 0x30FA},
              {0x3400, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF01, 0xFFEE}, {0x1F000, 0x1FAFF}};

bool is_inert(uint32_t point) {
  if (point < 0x300) return true;
  for (const auto& range : kInert)
    if (point <= range.last) return point >= range.first;
  return false;
}

// `points`: memory to work in.
void append_nfc(std::string_view text, std::vector<utf8proc_int32_t>& points, std::string& out) {
  decompose(text, points);
  sort_marks(points);
  const utf8proc_ssize_t length =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  CHECK(length >= 0);
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t count = utf8proc_encode_char(points[static_cast<size_t>(i)], bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
  }
}

struct Run {
  size_t end = 0;
  size_t last = 0;  // where its last character begins; where it would begin if it has none
};

// The run from `at` of characters that are inert, or are not.
Run run_of(std::string_view text, size_t at, bool inert) {
  Run run{at, at};
  while (run.end < text.size()) {
    const CodePoint point = decode_utf8(text.data() + run.end);
    if (is_inert(point.value) != inert) break;
    run.last = run.end;
    run.end += point.bytes;
  }
  return run;
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& buffer) {
  // U+0300 is CC 80: below it every character is inert.
  const auto below = [](char c) { return static_cast<unsigned char>(c) < 0xCC; };
  if (std::all_of(text.begin(), text.end(), below)) return text;
  std::vector<utf8proc_int32_t> points;
  buffer.clear();
  for (size_t at = 0; at < text.size();) {
    const Run inert = run_of(text, at, true);
    if (inert.end == text.size()) {
      if (at == 0) return text;
      buffer += text.substr(at);
      break;
    }
    // What is not inert may compose with the character before it.
    const Run changing = run_of(text, inert.end, false);
    buffer += text.substr(at, inert.last - at);
    append_nfc(text.substr(inert.last, changing.end - inert.last), points, buffer);
    at = changing.end;
  }
  return buffer;
}

}  // namespace chainpump::models
