// Methods of strings, lists and dicts that templates call. Those that would change a value are
// refused, as jinja2's immutable sandbox does.
#include <algorithm>
#include <array>
#include <limits>

#include "models/chat/runtime.h"

namespace chainpump::models::chat {
namespace {

constexpr std::array<std::string_view, 40> kTextMethods = {
    "strip",        "lstrip",   "rstrip",    "split",     "rsplit",     "splitlines",
    "startswith",   "endswith", "upper",     "lower",     "title",      "capitalize",
    "replace",      "find",     "rfind",     "count",     "join",       "format",
    "index",        "isdigit",  "isalpha",   "isalnum",   "isspace",    "removeprefix",
    "removesuffix", "encode",   "casefold",  "center",    "expandtabs", "isupper",
    "islower",      "ljust",    "rjust",     "partition", "rpartition", "swapcase",
    "translate",    "zfill",    "isnumeric", "istitle"};
constexpr std::array<std::string_view, 11> kListMethods = {"append", "extend", "insert", "pop",
                                                           "remove", "clear",  "copy",   "index",
                                                           "count",  "sort",   "reverse"};
constexpr std::array<std::string_view, 11> kDictMethods = {
    "get",   "items",      "keys",   "values", "pop",     "popitem",
    "clear", "setdefault", "update", "copy",   "fromkeys"};

template <size_t n>
bool contains_name(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

struct Call {
  Runtime& rt;
  const Arguments& args;
  Position position;

  /// An optional string argument: null if absent or None.
  const Text* text(size_t index, std::string_view name) const {
    const Value* value = args.get(index, name);
    if (!value || value->is_none()) return nullptr;
    return rt.expect_text(value, name, position);
  }
  int64_t integer(size_t index, std::string_view name, int64_t fallback) const {
    const Value* value = args.get(index, name);
    if (!value) return fallback;
    return rt.expect_integer(value, name, position).value_or(fallback);
  }
  Value part(const Text& text, size_t begin, size_t end) const {
    Text out;
    out.is_safe = text.is_safe;
    out.append(text, begin, end);
    return rt.text(std::move(out), position);
  }
};

Value stripped(const Call& call, const Text& self, bool left, bool right) {
  const Text* characters = call.text(0, "chars");
  const Span span = strip(self.bytes, characters ? characters->bytes : "", left, right);
  return call.part(self, span.begin, span.end);
}

/// Runs of white space separate, none at the ends.
std::vector<Span> split_space(std::string_view text, int64_t splits_max) {
  std::vector<Span> parts;
  size_t at = strip(text, {}, true, false).begin;
  while (at < text.size()) {
    size_t end = at;
    while (end < text.size() && !is_space(character_at(text, end).code_point))
      end += character_at(text, end).bytes;
    if (splits_max >= 0 && static_cast<int64_t>(parts.size()) == splits_max) {
      parts.push_back({at, strip(text, {}, false, true).end});
      break;
    }
    parts.push_back({at, end});
    at = end + strip(text.substr(end), {}, true, false).begin;
  }
  return parts;
}

std::vector<Span> split_by(std::string_view text, std::string_view separator, int64_t splits_max) {
  std::vector<Span> parts;
  size_t at = 0;
  while (splits_max < 0 || static_cast<int64_t>(parts.size()) < splits_max) {
    const size_t found = find_bytes(text, separator, at);
    if (found == std::string_view::npos) break;
    parts.push_back({at, found});
    at = found + separator.size();
  }
  parts.push_back({at, text.size()});
  return parts;
}

std::vector<Span> split_by_from_right(std::string_view text, std::string_view separator,
                                      int64_t splits_max) {
  std::vector<Span> parts;
  size_t end = text.size();
  while (splits_max < 0 || static_cast<int64_t>(parts.size()) < splits_max) {
    const size_t found = end < separator.size() ? std::string_view::npos
                                                : text.rfind(separator, end - separator.size());
    if (found == std::string_view::npos) break;
    parts.push_back({found + separator.size(), end});
    end = found;
  }
  parts.push_back({0, end});
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value parts_list(const Call& call, const Text& self, const std::vector<Span>& parts) {
  std::vector<Value> items;
  if (!call.rt.step(call.position, static_cast<int64_t>(parts.size()))) return Value();
  for (const Span& span : parts) items.push_back(call.part(self, span.begin, span.end));
  return call.rt.list(std::move(items), call.position);
}

Value split(const Call& call, const Text& self, bool from_right) {
  const Text* separator = call.text(0, "sep");
  const int64_t splits_max = call.integer(1, "maxsplit", -1);
  if (!separator) {
    if (from_right && splits_max >= 0)
      return call.rt.fail(ErrorCode::unimplemented, call.position,
                          "unsupported: rsplit by white space with maxsplit");
    return parts_list(call, self, split_space(self.bytes, splits_max));
  }
  if (separator->bytes.empty()) return call.rt.invalid(call.position, "an empty separator");
  if (!call.rt.pay_search(self.bytes, separator->bytes, call.position)) return Value();
  return parts_list(call, self,
                    from_right ? split_by_from_right(self.bytes, separator->bytes, splits_max)
                               : split_by(self.bytes, separator->bytes, splits_max));
}

Value split_lines(const Call& call, const Text& self) {
  std::vector<Span> parts;
  const std::string_view text = self.bytes;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\n\r", at), text.size());
    parts.push_back({at, end});
    at = end + 1 + (text.substr(end).starts_with("\r\n") ? 1 : 0);
  }
  return parts_list(call, self, parts);
}

Value starts_or_ends(const Call& call, const Text& self, bool starts) {
  const Value* affix = call.args.get(0, "prefix");
  const auto matches = [&](const Value& one) {
    const Text* text =
        call.rt.expect_text(&one, "what a string starts or ends with", call.position);
    if (!text) return false;
    return starts ? self.bytes.starts_with(text->bytes) : self.bytes.ends_with(text->bytes);
  };
  if (affix && affix->list() && affix->list()->kind == ListKind::tuple)
    return Value(std::any_of(affix->list()->items.begin(), affix->list()->items.end(), matches));
  return Value(matches(affix ? *affix : Value()));
}

Value find(const Call& call, const Text& self, bool from_right) {
  const Text* part = call.text(0, "sub");
  if (!part || call.args.positional.size() > 1)
    return call.rt.fail(ErrorCode::unimplemented, call.position,
                        "find takes exactly one string here");
  if (!call.rt.pay_search(self.bytes, part->bytes, call.position)) return Value();
  const size_t found =
      from_right ? self.bytes.rfind(part->bytes) : find_bytes(self.bytes, part->bytes);
  if (found == std::string::npos) return Value(int64_t{-1});
  return Value(
      static_cast<int64_t>(count_characters(std::string_view(self.bytes).substr(0, found))));
}

Value count(const Call& call, const Text& self) {
  const Text* part = call.text(0, "sub");
  if (!part || part->bytes.empty())
    return call.rt.invalid(call.position, "count needs a string that is not empty");
  if (!call.rt.pay_search(self.bytes, part->bytes, call.position)) return Value();
  return Value(static_cast<int64_t>(split_by(self.bytes, part->bytes, -1).size()) - 1);
}

Value replaced(const Call& call, const Text& self) {
  const Text* from = call.text(0, "old");
  const Text* to = call.text(1, "new");
  const int64_t most = call.integer(2, "count", -1);
  if (!from || !to) return call.rt.invalid(call.position, "replace needs two strings");
  Arguments args;
  args.positional = {Value(*from), Value(*to)};
  if (most >= 0) args.positional.emplace_back(most);
  return apply_filter(call.rt, "replace", Value(self), args, call.position);
}

/// '{}', '{0}' and '{name}', without format specifications.
Value formatted(const Call& call, const Text& self) {
  Text out;
  const std::string_view text = self.bytes;
  size_t automatic = 0;
  for (size_t at = 0; at < text.size() && call.rt.step(call.position);) {
    const size_t brace = std::min(text.find_first_of("{}", at), text.size());
    out.append(self, at, brace);
    if (brace == text.size()) break;
    if (text.substr(brace + 1).starts_with(text[brace])) {
      out.append(self, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    const size_t close = text.find('}', brace);
    if (text[brace] == '}' || close == std::string_view::npos)
      return call.rt.invalid(call.position, "format: a single brace");
    const std::string_view field = text.substr(brace + 1, close - brace - 1);
    if (field.find_first_of(":!.[{") != std::string_view::npos)
      return call.rt.fail(ErrorCode::unimplemented, call.position,
                          fmt::format("unsupported format field '{{{}}}'", field));
    const bool is_number =
        field.empty() || field.find_first_not_of("0123456789") == std::string_view::npos;
    size_t index = std::numeric_limits<size_t>::max();
    if (field.empty()) index = automatic++;
    if (is_number && !field.empty() && field.size() < 5) index = std::stoul(std::string(field));
    const Value* value = call.args.get(index, is_number ? "" : field);
    if (!value) return call.rt.invalid(call.position, "format: a field without an argument");
    out.append(call.rt.str(*value, call.position));
    if (out.bytes.size() > kTextBytesMax) break;
    at = close + 1;
  }
  return call.rt.text(std::move(out), call.position);
}

template <typename Is>
Value all_characters(const Text& self, Is is) {
  for (size_t at = 0; at < self.bytes.size();) {
    const Character c = character_at(self.bytes, at);
    if (!is(c.code_point)) return Value(false);
    at += c.bytes;
  }
  return Value(!self.bytes.empty());
}

Value text_method(const Call& call, const Text& self, std::string_view name) {
  const auto digit = [](uint32_t c) { return c >= '0' && c <= '9'; };
  const auto letter = [](uint32_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; };
  if (!call.rt.step(call.position, static_cast<int64_t>(self.bytes.size() / 64))) return Value();
  if (self.is_safe && (name == "replace" || name == "format" || name == "join"))
    return call.rt.fail(ErrorCode::unimplemented, call.position,
                        fmt::format("unsupported: {} of a safe string", name));
  if (name == "strip") return stripped(call, self, true, true);
  if (name == "lstrip") return stripped(call, self, true, false);
  if (name == "rstrip") return stripped(call, self, false, true);
  if (name == "split") return split(call, self, false);
  if (name == "rsplit") return split(call, self, true);
  if (name == "splitlines") return split_lines(call, self);
  if (name == "startswith") return starts_or_ends(call, self, true);
  if (name == "endswith") return starts_or_ends(call, self, false);
  if (name == "replace") return replaced(call, self);
  if (name == "find") return find(call, self, false);
  if (name == "rfind") return find(call, self, true);
  if (name == "count") return count(call, self);
  if (name == "format") return formatted(call, self);
  if (name == "isdigit") return all_characters(self, digit);
  if (name == "isspace") return all_characters(self, is_space);
  if (name == "upper" || name == "lower" || name == "capitalize")
    return apply_filter(call.rt, name, Value(self), {}, call.position);
  if (name == "isalpha" || name == "isalnum") {  // of ASCII; others say so
    for (const char c : self.bytes)
      if (static_cast<unsigned char>(c) >= 0x80)
        return call.rt.fail(ErrorCode::unimplemented, call.position,
                            fmt::format("unsupported: {} of text beyond ASCII", name));
    const bool digits = name == "isalnum";
    return all_characters(self, [&](uint32_t c) { return letter(c) || (digits && digit(c)); });
  }
  if (name == "join") {
    Arguments args;
    args.positional = {Value(self)};
    const Value* items = call.args.get(0, "iterable");
    return apply_filter(call.rt, "join", items ? *items : Value(), args, call.position);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const Text* affix = call.text(0, "affix");
    const size_t n = affix ? affix->bytes.size() : 0;
    if (!affix) return call.rt.invalid(call.position, fmt::format("{} needs a string", name));
    if (name == "removeprefix")
      return call.part(self, self.bytes.starts_with(affix->bytes) ? n : 0, self.bytes.size());
    return call.part(self, 0, self.bytes.size() - (self.bytes.ends_with(affix->bytes) ? n : 0));
  }
  return call.rt.fail(ErrorCode::unimplemented, call.position,
                      fmt::format("unsupported string method '{}'", name));
}

Value dict_method(const Call& call, const Value& self, std::string_view name) {
  const Dict& dict = *self.dict();
  if (!call.rt.step(call.position, static_cast<int64_t>(dict.entries.size() / 16))) return Value();
  if (name == "items" || name == "keys" || name == "values") {
    std::vector<Value> items;
    for (const auto& [key, value] : dict.entries)
      items.push_back(name == "items"  ? call.rt.list({key, value}, call.position, ListKind::tuple)
                      : name == "keys" ? key
                                       : value);
    return call.rt.list(std::move(items), call.position);
  }
  if (name == "copy") return self;
  if (name != "get")
    return call.rt.fail(ErrorCode::unimplemented, call.position,
                        fmt::format("unsupported dict method '{}' (values never change)", name));
  const Value* key = call.args.get(0, "key");
  const Value* fallback = call.args.get(1, "default");
  if (!key) return call.rt.invalid(call.position, "get needs a key");
  for (const auto& [k, value] : dict.entries)
    if (equal(k, *key, call.rt.budget)) return value;
  return fallback ? *fallback : Value(None{});
}

Value list_method(const Call& call, const Value& self, std::string_view name) {
  const List& list = *self.list();
  if (name == "copy") return self;
  if (name != "index" && name != "count")
    return call.rt.fail(ErrorCode::unimplemented, call.position,
                        fmt::format("unsupported list method '{}' (values never change)", name));
  const Value* sought = call.args.get(0, "value");
  int64_t found = 0;
  for (size_t i = 0; sought && i < list.items.size(); ++i) {
    if (!equal(list.items[i], *sought, call.rt.budget)) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++found;
  }
  if (name == "index") return call.rt.invalid(call.position, "index: no such item");
  return Value(found);
}

}  // namespace

bool has_method(const Value& self, std::string_view name) {
  if (self.text()) return contains_name(kTextMethods, name);
  if (self.dict()) return contains_name(kDictMethods, name);
  return self.list() && !self.is_generator() && contains_name(kListMethods, name);
}

Value call_method(Runtime& rt, const Value& self, std::string_view name, const Arguments& args,
                  Position position) {
  const Call call{rt, args, position};
  if (!rt.step(position)) return Value();
  if (const Text* text = self.text()) return text_method(call, *text, name);
  if (self.dict()) return dict_method(call, self, name);
  return list_method(call, self, name);
}

}  // namespace chainpump::models::chat
