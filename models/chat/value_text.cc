// Values as text: str(), repr() and json.dumps() as Python has them, with every byte's origin.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/chat/value.h"

namespace chainpump::models::chat {
namespace {

bool is_full(const Text& out, const Budget& budget) {
  return budget.spent() || out.bytes.size() > kTextBytesMax;
}

/// Whether work on `out` may go on: its growth since `before` is paid for.
bool pay(const Text& out, size_t before, Budget& budget) {
  return budget.spend(1) && budget.spend_bytes(static_cast<int64_t>(out.bytes.size() - before));
}

bool is_printable(uint32_t c) {
  return c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa1) && c != 0xad &&
         !(c >= 0x200b && c <= 0x200f) && c != 0x2028 && c != 0x2029 && c != 0xfeff &&
         (c < 0x80 || !is_space(c));
}

void append_quoted(const Text& text, Text& out) {
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const bool has_double = text.bytes.find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  for (size_t at = 0; at < text.bytes.size();) {
    const Character c = character_at(text.bytes, at);
    const bool marked = text.is_marked_at(at);
    const uint32_t p = c.code_point;
    if (p == static_cast<uint32_t>(quote) || p == '\\') {
      out.append(fmt::format("\\{}", static_cast<char>(p)), marked);
    } else if (p == '\n' || p == '\r' || p == '\t') {
      out.append(p == '\n' ? "\\n" : p == '\r' ? "\\r" : "\\t", marked);
    } else if (is_printable(p)) {
      out.append(text, at, at + c.bytes);
    } else {
      out.append(p < 0x100     ? fmt::format("\\x{:02x}", p)
                 : p < 0x10000 ? fmt::format("\\u{:04x}", p)
                               : fmt::format("\\U{:08x}", p),
                 marked);
    }
    at += c.bytes;
  }
  out.append(std::string_view(&quote, 1));
}

std::string json_escape(uint32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  if (c < 0x20) return fmt::format("\\u{:04x}", c);
  if (c < 0x7f || !ensure_ascii) return {};
  if (c < 0x10000) return fmt::format("\\u{:04x}", c);
  const uint32_t high = 0xd800 + ((c - 0x10000) >> 10);
  const uint32_t low = 0xdc00 + ((c - 0x10000) & 0x3ff);
  return fmt::format("\\u{:04x}\\u{:04x}", high, low);
}

void append_json_string(const Text& text, bool ensure_ascii, Text& out) {
  out.append("\"");
  size_t plain_from = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const Character c = character_at(text.bytes, at);
    if (const std::string escape = json_escape(c.code_point, ensure_ascii); !escape.empty()) {
      out.append(text, plain_from, at);
      out.append(escape, text.is_marked_at(at));
      plain_from = at + c.bytes;
    }
    at += c.bytes;
  }
  out.append(text, plain_from, text.bytes.size());
  out.append("\"");
}

void append_json_float(double d, Text& out) {
  if (std::isnan(d)) return out.append("NaN");
  if (std::isinf(d)) return out.append(d > 0 ? "Infinity" : "-Infinity");
  out.append(float_repr(d));
}

/// Separators may be as long as strings get.
void append_paid(std::string_view text, Text& out, Budget& budget) {
  if (budget.spend_bytes(static_cast<int64_t>(text.size()))) out.append(text);
}

/// Begins the next item of a list or dict.
void append_break(const JsonStyle& style, int level, Text& out) {
  if (style.indent < 0) return;
  out.append("\n" +
             std::string(static_cast<size_t>(style.indent) * static_cast<size_t>(level), ' '));
}

}  // namespace

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string s = fmt::format("{}", d);
  if (s.find_first_of(".e") == std::string::npos) s += ".0";
  return s;
}

void append_str(const Value& value, Text& out, Budget& budget) {
  const size_t before = out.bytes.size();
  if (const Text* t = value.text()) {
    out.append(*t);
    pay(out, before, budget);
  } else if (!value.is_undefined()) {
    append_repr(value, out, budget);
  }
}

void append_repr(const Value& value, Text& out, Budget& budget) {
  if (is_full(out, budget)) return;
  const size_t before = out.bytes.size();
  if (const Text* t = value.text()) {
    append_quoted(*t, out);
  } else if (const bool* b = value.boolean()) {
    out.append(*b ? "True" : "False");
  } else if (const auto i = value.integer()) {
    out.append(fmt::format("{}", *i));
  } else if (value.is_float()) {
    out.append(float_repr(*value.number()));
  } else if (value.is_none()) {
    out.append("None");
  } else if (value.is_undefined()) {
    out.append("Undefined");
  } else if (const List* l = value.list(); l && !value.is_generator()) {
    const bool is_tuple = l->kind == ListKind::tuple;
    out.append(is_tuple ? "(" : "[");
    for (size_t n = 0; n < l->items.size() && !is_full(out, budget); ++n) {
      if (n > 0) out.append(", ");
      append_repr(l->items[n], out, budget);
    }
    if (is_tuple && l->items.size() == 1) out.append(",");
    out.append(is_tuple ? ")" : "]");
  } else if (const Dict* d = value.dict()) {
    out.append("{");
    for (size_t n = 0; n < d->entries.size() && !is_full(out, budget); ++n) {
      if (n > 0) out.append(", ");
      append_repr(d->entries[n].first, out, budget);
      out.append(": ");
      append_repr(d->entries[n].second, out, budget);
    }
    out.append("}");
  } else {
    out.append(fmt::format("<{}>", value.type_name()));
  }
  if (value.height() == 0) {
    pay(out, before, budget);
  } else {
    budget.spend(1);
    budget.spend_bytes(2);
  }
}

namespace {

bool append_json_key(const Value& key, const JsonStyle& style, Text& out, std::string& unknown) {
  if (const Text* t = key.text()) {
    append_json_string(*t, style.ensure_ascii, out);
  } else if (const bool* b = key.boolean()) {
    out.append(*b ? "\"true\"" : "\"false\"");
  } else if (const auto i = key.integer()) {
    out.append(fmt::format("\"{}\"", *i));
  } else if (key.is_none()) {
    out.append("\"null\"");
  } else {
    unknown = key.type_name();
    return false;
  }
  return true;
}

bool append_json_dict(const Dict& dict, const JsonStyle& style, int level, Text& out,
                      Budget& budget, std::string& unknown) {
  auto entries = dict.entries;
  if (style.sort_keys)
    std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
      return compare(a.first, b.first, budget).value_or(0) < 0;
    });
  if (entries.empty()) return out.append("{}"), true;
  out.append("{");
  for (size_t n = 0; n < entries.size() && !is_full(out, budget); ++n) {
    if (n > 0) append_paid(style.item_separator, out, budget);
    append_break(style, level + 1, out);
    if (!append_json_key(entries[n].first, style, out, unknown)) return false;
    append_paid(style.key_separator, out, budget);
    if (!append_json(entries[n].second, style, level + 1, out, budget, unknown)) return false;
  }
  append_break(style, level, out);
  out.append("}");
  return true;
}

}  // namespace

bool append_json(const Value& value, const JsonStyle& style, int level, Text& out, Budget& budget,
                 std::string& unknown) {
  const size_t before = out.bytes.size();
  if (is_full(out, budget)) return true;
  if (const Text* t = value.text()) {
    append_json_string(*t, style.ensure_ascii, out);
  } else if (const bool* b = value.boolean()) {
    out.append(*b ? "true" : "false");
  } else if (const auto i = value.integer()) {
    out.append(fmt::format("{}", *i));
  } else if (value.is_float()) {
    append_json_float(*value.number(), out);
  } else if (value.is_none()) {
    out.append("null");
  } else if (const Dict* d = value.dict()) {
    budget.spend(static_cast<int64_t>(d->entries.size()) + 1);
    return budget.spend_bytes(2 + (level + 1) * std::max<int64_t>(style.indent, 0)),
           append_json_dict(*d, style, level, out, budget, unknown);
  } else if (const List* l = value.list(); l && !value.is_generator()) {
    if (l->items.empty()) return budget.spend_bytes(2), out.append("[]"), true;
    out.append("[");
    for (size_t n = 0; n < l->items.size() && !is_full(out, budget); ++n) {
      if (n > 0) append_paid(style.item_separator, out, budget);
      append_break(style, level + 1, out);
      budget.spend_bytes(2 + (level + 1) * std::max<int64_t>(style.indent, 0));
      if (!append_json(l->items[n], style, level + 1, out, budget, unknown)) return false;
    }
    append_break(style, level, out);
    out.append("]");
    return true;
  } else {
    unknown = value.type_name();
    return false;
  }
  pay(out, before, budget);
  return true;
}

}  // namespace chainpump::models::chat
