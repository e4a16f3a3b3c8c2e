// Filters on single values, and the table of all filters. Those over sequences are in
// sequence_filters.cc.
#include "models/chat/filters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace chainpump::models::chat {
namespace {

/// The operand as text, as jinja2's soft_str takes it.
Text soft_text(const FilterCall& call) { return call.rt.str(call.operand, call.position); }

/// A filter's result that is safe if the operand was.
Value as_safe_as_before(const FilterCall& call, Text text) {
  text.is_safe = call.operand.text() && call.operand.text()->is_safe;
  return call.rt.text(std::move(text), call.position);
}

bool pay_characters(const FilterCall& call, const Text& text) {
  return call.rt.step(call.position, static_cast<int64_t>(text.bytes.size() / 4));
}

Value trim(const FilterCall& call) {
  const Text text = soft_text(call);
  const Value* characters = call.args.get(0, "chars");
  const Text* set = characters && !characters->is_none()
                        ? call.rt.expect_text(characters, "chars", call.position)
                        : nullptr;
  const Span span = strip(text.bytes, set ? set->bytes : "", true, true);
  Text out;
  out.append(text, span.begin, span.end);
  return as_safe_as_before(call, std::move(out));
}

Value string(const FilterCall& call) { return as_safe_as_before(call, soft_text(call)); }

Value safe(const FilterCall& call) {
  Text text = soft_text(call);
  text.is_safe = true;
  return call.rt.text(std::move(text), call.position);
}

Value upper(const FilterCall& call) {
  const Text text = soft_text(call);
  return pay_characters(call, text) ? as_safe_as_before(call, to_upper(text)) : Value();
}

Value lower(const FilterCall& call) {
  const Text text = soft_text(call);
  return pay_characters(call, text) ? as_safe_as_before(call, to_lower(text)) : Value();
}

Value title(const FilterCall& call) {
  const Text text = soft_text(call);
  return pay_characters(call, text) ? call.rt.text(capitalize(text, true), call.position) : Value();
}

Value capitalize_first(const FilterCall& call) {
  const Text text = soft_text(call);
  return pay_characters(call, text) ? as_safe_as_before(call, capitalize(text, false)) : Value();
}

Value replace_filter(const FilterCall& call) {
  const Text text = soft_text(call);
  const Value* from = call.args.get(0, "old");
  const Value* to = call.args.get(1, "new");
  if (!from || !to) return call.rt.invalid(call.position, "replace needs old and new");
  const Text old_text = call.rt.str(*from, call.position);
  const Text new_text = call.rt.str(*to, call.position);
  size_t count_max = std::numeric_limits<size_t>::max();
  if (const Value* count = call.args.get(2, "count"); count && !count->is_none()) {
    const auto n = call.rt.expect_integer(count, "count", call.position).value_or(0);
    if (n >= 0) count_max = static_cast<size_t>(n);
  }
  if (!call.rt.pay_search(text.bytes, old_text.bytes, call.position)) return Value();
  // The result's size is known before it is made.
  size_t found = old_text.bytes.empty() ? count_characters(text.bytes) + 1 : 0;
  for (size_t at = 0; !old_text.bytes.empty() && found < count_max; ++found) {
    at = find_bytes(text.bytes, old_text.bytes, at);
    if (at == std::string::npos) break;
    at += old_text.bytes.size();
  }
  found = std::min(found, count_max);
  if (!call.rt.step(call.position, static_cast<int64_t>(found / 4))) return Value();
  if (found > 0 && new_text.bytes.size() > kTextBytesMax / found)
    return call.rt.invalid(call.position, "a string grows beyond 16 MiB");
  return call.rt.text(replace(text, old_text.bytes, new_text, count_max), call.position);
}

Value to_json(const FilterCall& call) {
  JsonStyle style;
  if (const Value* ascii = call.args.get(0, "ensure_ascii")) style.ensure_ascii = ascii->truth();
  if (const Value* indent = call.args.get(1, "indent"); indent && !indent->is_none()) {
    style.indent = call.rt.expect_integer(indent, "indent", call.position).value_or(0);
    if (style.indent < 0 || style.indent > 64)
      return call.rt.invalid(call.position, "tojson: indent must be in [0, 64]");
    style.item_separator.resize(1);  // no space before a line break
  }
  if (const Value* separators = call.args.get(2, "separators"); separators && separators->list()) {
    const auto& both = separators->list()->items;
    if (both.size() != 2 || !both[0].text() || !both[1].text())
      return call.rt.invalid(call.position, "tojson: separators must be two strings");
    style.item_separator = both[0].text()->bytes;
    style.key_separator = both[1].text()->bytes;
  }
  if (const Value* sort = call.args.get(3, "sort_keys")) style.sort_keys = sort->truth();
  Text out;
  std::string unknown;
  if (!append_json(call.operand, style, 0, out, call.rt.budget, unknown))
    return call.rt.invalid(call.position, fmt::format("tojson: {} has no JSON form", unknown));
  return pay_characters(call, out) ? call.rt.text(std::move(out), call.position) : Value();
}

Value default_filter(const FilterCall& call) {
  const Value* fallback = call.args.get(0, "default_value");
  const Value* boolean = call.args.get(1, "boolean");
  const bool missing =
      call.operand.is_undefined() || (boolean && boolean->truth() && !call.operand.truth());
  if (!missing) return call.operand;
  return fallback ? *fallback : Value("");
}

/// The number a string spells, as Python's int() and float() take it.
std::optional<double> spelled_number(const Text& text) {
  const Span span = strip(text.bytes, {}, true, true);
  const char* begin = text.bytes.data() + span.begin;
  const char* end = text.bytes.data() + span.end;
  if (begin < end && *begin == '+') ++begin;
  double value = 0;
  const auto parsed = std::from_chars(begin, end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

Value to_int(const FilterCall& call) {
  const Value* fallback = call.args.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(int64_t{0});
  if (const auto i = call.operand.integer()) return Value(*i);
  std::optional<double> number = call.operand.number();
  if (const Text* text = call.operand.text()) {
    const Span span = strip(text->bytes, {}, true, true);
    int64_t whole = 0;
    const char* end = text->bytes.data() + span.end;
    const char* begin = text->bytes.data() + span.begin;
    if (begin < end && *begin == '+') ++begin;
    const auto parsed = std::from_chars(begin, end, whole);
    if (parsed.ec == std::errc() && parsed.ptr == end) return Value(whole);
    number = spelled_number(*text);
  }
  if (!number || !(std::fabs(*number) < 0x1.0p63)) return otherwise;
  return Value(static_cast<int64_t>(*number));
}

Value to_float(const FilterCall& call) {
  const Value* fallback = call.args.get(0, "default");
  if (const auto number = call.operand.number()) return Value(*number);
  if (const Text* text = call.operand.text())
    if (const auto number = spelled_number(*text)) return Value(*number);
  return fallback ? *fallback : Value(0.0);
}

Value absolute(const FilterCall& call) {
  const auto i = call.operand.integer();
  if (i && *i != std::numeric_limits<int64_t>::min()) return Value(*i < 0 ? -*i : *i);
  if (const auto d = call.operand.number()) return Value(std::fabs(*d));
  return call.rt.invalid(call.position, "abs needs a number");
}

Value round_filter(const FilterCall& call) {
  const auto number = call.operand.number();
  const Value* precision = call.args.get(0, "precision");
  const Value* method = call.args.get(1, "method");
  if (!number) return call.rt.invalid(call.position, "round needs a number");
  if (precision && !equal(*precision, Value(int64_t{0}), call.rt.budget))
    return call.rt.fail(ErrorCode::unimplemented, call.position, "unsupported: round to decimals");
  std::string_view how = "common";
  if (method && method->text()) how = method->text()->bytes;
  if (how == "ceil") return Value(std::ceil(*number));
  if (how == "floor") return Value(std::floor(*number));
  if (const auto whole = call.operand.integer()) return Value(*whole);
  return Value(std::nearbyint(*number));
}

Value indent(const FilterCall& call) {
  const Text text = soft_text(call);
  const Value* width = call.args.get(0, "width");
  const Value* first = call.args.get(1, "first");
  const Value* blank = call.args.get(2, "blank");
  Text prefix;
  if (width && width->text()) {
    prefix = *width->text();
  } else {
    const auto n = width ? call.rt.expect_integer(width, "width", call.position) : 4;
    if (!n || *n > 1024)
      return call.rt.invalid(call.position, "indent: width must be at most 1024");
    prefix.bytes.assign(static_cast<size_t>(std::max<int64_t>(*n, 0)), ' ');
  }
  const auto lines = std::count(text.bytes.begin(), text.bytes.end(), '\n') + 1;
  if (static_cast<size_t>(lines) > kTextBytesMax / (prefix.bytes.size() + 1))
    return call.rt.invalid(call.position, "a string grows beyond 16 MiB");
  if (!call.rt.step(call.position, lines / 4)) return Value();
  Text out;
  for (size_t at = 0; at <= text.bytes.size();) {
    const size_t end = std::min(text.bytes.find('\n', at), text.bytes.size());
    const bool is_first = at == 0;
    const bool wanted = is_first ? first && first->truth() : end > at || (blank && blank->truth());
    if (!is_first) out.append("\n");
    if (wanted) out.append(prefix);
    out.append(text, at, end);
    at = end + 1;
  }
  return call.rt.text(std::move(out), call.position);
}

struct Entry {
  std::string_view name;
  Value (*apply)(const FilterCall&);
};

constexpr Entry kFilters[] = {
    {"trim", trim},
    {"string", string},
    {"safe", safe},
    {"upper", upper},
    {"lower", lower},
    {"title", title},
    {"capitalize", capitalize_first},
    {"replace", replace_filter},
    {"tojson", to_json},
    {"default", default_filter},
    {"d", default_filter},
    {"int", to_int},
    {"float", to_float},
    {"abs", absolute},
    {"round", round_filter},
    {"indent", indent},
    {"length", length_filter},
    {"count", length_filter},
    {"first", first_filter},
    {"last", last_filter},
    {"list", list_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"map", map_filter},
    {"select", select_filter},
    {"reject", reject_filter},
    {"selectattr", selectattr_filter},
    {"rejectattr", rejectattr_filter},
    {"dictsort", dictsort_filter},
    {"sort", sort_filter},
    {"reverse", reverse_filter},
    {"unique", unique_filter},
    {"sum", sum_filter},
    {"min", min_filter},
    {"max", max_filter},
    {"attr", attr_filter},
};

}  // namespace

Value apply_filter(Runtime& rt, std::string_view name, const Value& operand, const Arguments& args,
                   Position position) {
  if (!rt.step(position)) return Value();
  for (const Entry& entry : kFilters)
    if (entry.name == name) return entry.apply({rt, operand, args, position});
  return rt.fail(ErrorCode::unimplemented, position, fmt::format("unsupported filter '{}'", name));
}

}  // namespace chainpump::models::chat
