// Arithmetic and concatenation with Python's meaning; integers have 64 bits and say so when that
// does not do.
#include <cmath>

#include "models/chat/runtime.h"

namespace chainpump::models::chat {
namespace {

Value repeat(Runtime& rt, const Value& value, int64_t times, Position position) {
  times = std::max<int64_t>(times, 0);
  if (const Text* text = value.text()) {
    const size_t bytes = text->bytes.size();
    if (bytes > 0 && static_cast<uint64_t>(times) > kTextBytesMax / bytes)
      return rt.invalid(position, "a string grows beyond 16 MiB");
    Text out;
    out.is_safe = text->is_safe;
    for (int64_t n = 0; bytes > 0 && n < times; ++n) out.append(*text);
    rt.step(position, bytes > 0 ? times / 16 : 0);
    return rt.text(std::move(out), position);
  }
  const List& list = *value.list();
  const size_t size = list.items.size();
  if (size > 0 && static_cast<uint64_t>(times) > kListItemsMax / size)
    return rt.invalid(position, "a list grows beyond 10^6 items");
  std::vector<Value> items;
  for (int64_t n = 0; size > 0 && n < times; ++n)
    items.insert(items.end(), list.items.begin(), list.items.end());
  return rt.list(std::move(items), position, list.kind);
}

std::optional<int64_t> power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent & 1) {
      if (__builtin_mul_overflow(result, base, &result)) return std::nullopt;
    }
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return std::nullopt;
  }
  return result;
}

Value integers(Runtime& rt, std::string_view op, int64_t a, int64_t b, Position position) {
  int64_t r = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &r);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &r);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &r);
  } else if (op == "**") {
    if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
    const auto p = power(a, b);
    overflow = !p;
    r = p.value_or(0);
  } else {
    if (b == 0) return rt.invalid(position, "division by zero");
    if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {  // the one quotient that may overflow
      if (op == "%") return Value(int64_t{0});
      overflow = __builtin_sub_overflow(int64_t{0}, a, &r);
    } else {
      const int64_t quotient = a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
      r = op == "//" ? quotient : a - quotient * b;
    }
  }
  if (overflow)
    return rt.fail(ErrorCode::unimplemented, position, "an integer of more than 64 bits");
  return Value(r);
}

Value floats(Runtime& rt, std::string_view op, double a, double b, Position position) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return rt.invalid(position, "division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double remainder = std::fmod(a, b);
  return Value(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

/// As Python adds str and markupsafe's Markup, even where templates escape nothing else.
Value add_texts(Runtime& rt, const Text& a, const Text& b, Position position) {
  Text out = b.is_safe && !a.is_safe ? escape_html(a) : a;
  out.append(a.is_safe && !b.is_safe ? escape_html(b) : b);
  return rt.text(std::move(out), position);
}

}  // namespace

Value binary_operation(Runtime& rt, std::string_view op, const Value& a, const Value& b,
                       Position position) {
  if (op == "~") {
    Text out = rt.str(a, position);
    out.append(rt.str(b, position));
    return rt.text(std::move(out), position);
  }
  for (const Value* side : {&a, &b})
    if (const Undefined* u = side->undefined())
      return rt.invalid(position, fmt::format("'{}' is undefined (operand of {})", u->name, op));
  if (a.integer() && b.integer()) return integers(rt, op, *a.integer(), *b.integer(), position);
  if (a.number() && b.number()) return floats(rt, op, *a.number(), *b.number(), position);
  if (op == "+" && a.text() && b.text()) {
    return add_texts(rt, *a.text(), *b.text(), position);
  }
  if (op == "+" && a.list() && b.list() && a.list()->kind == b.list()->kind && !a.is_generator()) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return rt.list(std::move(items), position, a.list()->kind);
  }
  const auto repeats = [](const Value& v) { return v.text() || (v.list() && !v.is_generator()); };
  if (op == "*" && repeats(a) && b.integer()) return repeat(rt, a, *b.integer(), position);
  if (op == "*" && repeats(b) && a.integer()) return repeat(rt, b, *a.integer(), position);
  if (op == "%" && a.text())
    return rt.fail(ErrorCode::unimplemented, position, "unsupported: formatting with %");
  return rt.invalid(position, fmt::format("'{}' does not work between {} and {}", op, a.type_name(),
                                          b.type_name()));
}

}  // namespace chainpump::models::chat
