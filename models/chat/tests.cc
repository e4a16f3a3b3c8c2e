// Jinja tests: `value is name(arguments)`.
#include "models/chat/runtime.h"

namespace chainpump::models::chat {
namespace {

bool is_lower_or_upper(Runtime& rt, const Value& v, bool upper, Position position) {
  const Text* text = v.text();
  if (!text || !rt.step(position, static_cast<int64_t>(text->bytes.size() / 4))) return false;
  const Text up = to_upper(*text);
  const Text low = to_lower(*text);
  return up.bytes != low.bytes && text->bytes == (upper ? up.bytes : low.bytes);
}

std::optional<bool> comparison(Runtime& rt, std::string_view name, const Value& a, const Value& b,
                               Position position) {
  if (name == "eq" || name == "equalto") return equal(a, b, rt.budget);
  if (name == "ne") return !equal(a, b, rt.budget);
  const bool less = name == "lt" || name == "lessthan";
  const bool greater = name == "gt" || name == "greaterthan";
  if (!less && !greater && name != "le" && name != "ge") return std::nullopt;
  const auto order = compare(a, b, rt.budget);
  if (!order) {
    rt.invalid(position, fmt::format("{} and {} have no order", a.type_name(), b.type_name()));
    return false;
  }
  if (less) return *order < 0;
  if (greater) return *order > 0;
  return name == "le" ? *order <= 0 : *order >= 0;
}

/// Tests without arguments.
std::optional<bool> kind_test(Runtime& rt, std::string_view name, const Value& v,
                              Position position) {
  const bool is_bool = v.boolean() != nullptr;
  if (name == "defined") return !v.is_undefined();
  if (name == "undefined") return v.is_undefined();
  if (name == "none") return v.is_none();
  if (name == "string") return v.text() != nullptr;
  if (name == "mapping") return v.dict() != nullptr;
  if (name == "boolean") return is_bool;
  if (name == "true") return is_bool && *v.boolean();
  if (name == "false") return is_bool && !*v.boolean();
  if (name == "integer") return !is_bool && v.integer().has_value();
  if (name == "float") return v.is_float();
  if (name == "number") return v.number().has_value();
  if (name == "callable") return v.callable() != nullptr;
  if (name == "sequence" && v.is_generator()) return false;
  if (name == "iterable" || name == "sequence")
    return v.text() || v.list() || v.dict() || v.is_undefined();
  if (name == "lower" || name == "upper")
    return is_lower_or_upper(rt, v, name == "upper", position);
  if (name == "odd" || name == "even") {
    const auto i = rt.expect_integer(&v, "what is odd or even", position);
    return i && (*i % 2 != 0) == (name == "odd");
  }
  return std::nullopt;
}

}  // namespace

bool apply_test(Runtime& rt, std::string_view name, const Value& operand, const Arguments& args,
                Position position) {
  if (!rt.step(position)) return false;
  if (const auto answer = kind_test(rt, name, operand, position)) return *answer;
  const Value missing;
  const Value& other = args.positional.empty() ? missing : args.positional[0];
  if (const auto answer = comparison(rt, name, operand, other, position)) return *answer;
  if (name == "in") return rt.contains(other, operand, position);
  if (name == "sameas")
    return operand.type_name() == other.type_name() && equal(operand, other, rt.budget);
  if (name == "divisibleby") {
    const auto a = rt.expect_integer(&operand, "the operand of divisibleby", position);
    const auto b = rt.expect_integer(&other, "the argument of divisibleby", position);
    if (b && *b == 0) rt.invalid(position, "division by zero");
    return a && b && *b != 0 && (*b == -1 || *a % *b == 0);
  }
  rt.fail(ErrorCode::unimplemented, position, fmt::format("unsupported test '{}'", name));
  return false;
}

}  // namespace chainpump::models::chat
