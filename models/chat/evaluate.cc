// Expressions -> values.
#include <algorithm>
#include <ctime>
#include <limits>

#include "models/chat/interpreter.h"

namespace chainpump::models::chat {
namespace {

constexpr int64_t kRangeMax = 100'000;  // as jinja2's sandbox

struct SliceBounds {
  int64_t start = 0;
  int64_t step = 1;
  int64_t count = 0;
};

/// Python's slice.indices, as a start, a step and how many.
SliceBounds slice_bounds(std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step,
                         int64_t size) {
  const auto clamp = [&](int64_t index) {
    if (index < 0) index = index < -size ? -1 : index + size;
    if (step > 0) return std::clamp<int64_t>(index, 0, size);
    return std::clamp<int64_t>(index, -1, size - 1);
  };
  const int64_t first = start ? clamp(*start) : (step > 0 ? 0 : size - 1);
  const int64_t last = stop ? clamp(*stop) : (step > 0 ? size : -1);
  SliceBounds bounds{first, step, 0};
  if (step > 0 && last > first) bounds.count = (last - first - 1) / step + 1;
  if (step < 0 && last < first) bounds.count = (first - last - 1) / -step + 1;
  return bounds;
}

}  // namespace

Value Interpreter::evaluate(const Expr& expr) {
  const Depth depth(*this, expr.position);
  if (!rt_.step(expr.position)) return Value();
  return evaluate_kind(expr);
}

Value Interpreter::evaluate_kind(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::literal:
      return expr.value;
    case ExprKind::name:
      return evaluate_name(expr);
    case ExprKind::list:
    case ExprKind::tuple:
      return rt_.list(evaluate_all(expr.args, 0), expr.position,
                      expr.kind == ExprKind::tuple ? ListKind::tuple : ListKind::list);
    case ExprKind::dict:
      return evaluate_dict(expr);
    case ExprKind::attribute:
      return rt_.attribute(evaluate(*expr.args[0]), expr.text, expr.position);
    case ExprKind::subscript: {
      const Value operand = evaluate(*expr.args[0]);
      return rt_.item(operand, evaluate(*expr.args[1]), expr.position);
    }
    case ExprKind::slice:
      return evaluate_slice(expr);
    case ExprKind::call:
      return evaluate_call(expr, nullptr);
    case ExprKind::filter:
      return evaluate_filter(expr);
    case ExprKind::test:
      return evaluate_test(expr);
    case ExprKind::unary:
      return evaluate_unary(expr);
    case ExprKind::binary:
      return evaluate_binary(expr);
    case ExprKind::comparison:
      return evaluate_comparison(expr);
    case ExprKind::conditional: {
      if (evaluate(*expr.args[0]).truth()) return evaluate(*expr.args[1]);
      if (expr.args[2]) return evaluate(*expr.args[2]);
      return Value(Undefined{"the else of an if without one"});
    }
  }
  return Value();
}

Value Interpreter::evaluate_name(const Expr& expr) {
  if (const Value* found = scope_->find(expr.text)) return *found;
  static constexpr std::string_view kGlobals[] = {"range", "namespace", "dict", "raise_exception",
                                                  "strftime_now"};
  if (std::find(std::begin(kGlobals), std::end(kGlobals), expr.text) != std::end(kGlobals)) {
    Callable global;
    global.name = expr.text;
    return Value(std::move(global));
  }
  if (expr.text == "lipsum" || expr.text == "cycler" || expr.text == "joiner")
    return rt_.fail(ErrorCode::unimplemented, expr.position,
                    fmt::format("unsupported global '{}'", expr.text));
  return Value(Undefined{expr.text});
}

std::vector<Value> Interpreter::evaluate_all(const ExprList& exprs, size_t from) {
  std::vector<Value> values;
  for (size_t i = from; i < exprs.size() && !rt_.failed(); ++i)
    values.push_back(evaluate(*exprs[i]));
  return values;
}

Value Interpreter::evaluate_dict(const Expr& expr) {
  Dict dict;
  const std::vector<Value> all = evaluate_all(expr.args, 0);
  for (size_t i = 0; i + 1 < all.size(); i += 2) {
    const auto same = [&](const auto& entry) { return equal(entry.first, all[i], rt_.budget); };
    const auto old = std::find_if(dict.entries.begin(), dict.entries.end(), same);
    if (old != dict.entries.end()) {
      old->second = all[i + 1];
    } else {
      dict.entries.emplace_back(all[i], all[i + 1]);
    }
  }
  return rt_.dict(std::move(dict), expr.position);
}

Value Interpreter::evaluate_unary(const Expr& expr) {
  const Value operand = evaluate(*expr.args[0]);
  if (expr.text == "not") return Value(!operand.truth());
  if (expr.text == "-")
    return binary_operation(rt_, "-", Value(int64_t{0}), operand, expr.position);
  return binary_operation(rt_, "+", Value(int64_t{0}), operand, expr.position);
}

Value Interpreter::evaluate_binary(const Expr& expr) {
  const Value left = evaluate(*expr.args[0]);
  if (expr.text == "and") return left.truth() ? evaluate(*expr.args[1]) : left;
  if (expr.text == "or") return left.truth() ? left : evaluate(*expr.args[1]);
  const Value right = evaluate(*expr.args[1]);
  if (rt_.failed()) return Value();
  return binary_operation(rt_, expr.text, left, right, expr.position);
}

bool Interpreter::compare_once(std::string_view op, const Value& a, const Value& b,
                               Position position) {
  if (op == "==") return equal(a, b, rt_.budget);
  if (op == "!=") return !equal(a, b, rt_.budget);
  if (op == "in") return rt_.contains(b, a, position);
  if (op == "not in") return !rt_.contains(b, a, position);
  const auto order = compare(a, b, rt_.budget);
  if (!order) {
    rt_.invalid(position, fmt::format("'{}' does not work between {} and {}", op, a.type_name(),
                                      b.type_name()));
    return false;
  }
  if (op == "<") return *order < 0;
  if (op == "<=") return *order <= 0;
  return op == ">" ? *order > 0 : *order >= 0;
}

/// a < b <= c: each pair, ended by the first that is false.
Value Interpreter::evaluate_comparison(const Expr& expr) {
  Value left = evaluate(*expr.args[0]);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = evaluate(*expr.args[i + 1]);
    if (rt_.failed()) return Value();
    if (!compare_once(expr.ops[i], left, right, expr.position)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::evaluate_slice(const Expr& expr) {
  const Value operand = evaluate(*expr.args[0]);
  std::optional<int64_t> parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (!expr.args[i + 1]) continue;
    const Value part = evaluate(*expr.args[i + 1]);
    if (!part.is_none()) parts[i] = rt_.expect_integer(&part, "a slice's bound", expr.position);
  }
  const int64_t step = parts[2].value_or(1);
  if (step == 0) return rt_.invalid(expr.position, "a slice's step is 0");
  if (rt_.failed()) return Value();
  const Text* text = operand.text();
  if (text && step == 1) {  // by offsets, without taking the characters apart
    const std::string_view bytes = text->bytes;
    if (!rt_.step(expr.position, static_cast<int64_t>(bytes.size() / 16))) return Value();
    const auto size = static_cast<int64_t>(count_characters(bytes));
    const SliceBounds b = slice_bounds(parts[0], parts[1], 1, size);
    const size_t begin = offset_of_character(bytes, static_cast<size_t>(b.start));
    const size_t end =
        begin + offset_of_character(bytes.substr(begin), static_cast<size_t>(b.count));
    Text out;
    out.is_safe = text->is_safe;
    out.append(*text, begin, end);
    return rt_.text(std::move(out), expr.position);
  }
  if (const Undefined* u = operand.undefined())
    return rt_.invalid(expr.position, fmt::format("'{}' is undefined", u->name));
  if (!text && (!operand.list() || operand.is_generator()))
    return Value(Undefined{fmt::format("a slice of {}", operand.type_name())});
  const std::vector<Value> items = rt_.items_of(operand, expr.position);
  const SliceBounds b =
      slice_bounds(parts[0], parts[1], std::clamp<int64_t>(step, -1'000'000'000, 1'000'000'000),
                   static_cast<int64_t>(items.size()));
  std::vector<Value> out;
  for (int64_t n = 0; n < b.count && !rt_.failed(); ++n)
    out.push_back(items[static_cast<size_t>(b.start + n * b.step)]);
  if (!text) return rt_.list(std::move(out), expr.position, operand.list()->kind);
  Text joined;
  for (const Value& character : out) joined.append(*character.text());
  return rt_.text(std::move(joined), expr.position);
}

Arguments Interpreter::evaluate_arguments(const Expr& expr) {
  Arguments args;
  args.positional = evaluate_all(expr.args, 1);
  for (const auto& [name, value] : expr.named) args.named.emplace_back(name, evaluate(*value));
  return args;
}

Value Interpreter::evaluate_call(const Expr& expr, const Value* caller) {
  const Value callee = evaluate(*expr.args[0]);
  const Arguments args = evaluate_arguments(expr);
  if (rt_.failed()) return Value();
  const Callable* callable = callee.callable();
  if (callable == nullptr) {
    if (const Undefined* u = callee.undefined())
      return rt_.invalid(expr.position, fmt::format("'{}' is undefined", u->name));
    return rt_.invalid(expr.position, fmt::format("'{}' cannot be called", callee.type_name()));
  }
  if (callable->macro) return call_macro(*callable, args, caller, expr.position);
  if (!callable->self.is_undefined())
    return call_method(rt_, callable->self, callable->name, args, expr.position);
  return call_global(callable->name, args, expr.position);
}

Value Interpreter::evaluate_filter(const Expr& expr) {
  const Value operand =
      expr.args[0] ? evaluate(*expr.args[0]) : (block_operand_ ? *block_operand_ : Value());
  const Arguments args = evaluate_arguments(expr);
  if (rt_.failed()) return Value();
  return apply_filter(rt_, expr.text, operand, args, expr.position);
}

Value Interpreter::evaluate_test(const Expr& expr) {
  const Value operand = evaluate(*expr.args[0]);
  const Arguments args = evaluate_arguments(expr);
  if (rt_.failed()) return Value();
  return Value(apply_test(rt_, expr.text, operand, args, expr.position));
}

Value Interpreter::call_range(const Arguments& args, Position position) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t n = args.positional.size();
  if (n < 1 || n > 3) return rt_.invalid(position, "range takes one to three integers");
  for (size_t i = 0; i < n; ++i) {
    const auto value = rt_.expect_integer(&args.positional[i], "range's bound", position);
    if (!value) return Value();
    if (*value > (int64_t{1} << 60) || *value < -(int64_t{1} << 60))
      return rt_.invalid(position, "range is too large (the limit is 100000)");
    bounds[n == 1 ? 1 : i] = *value;
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) return rt_.invalid(position, "range's step is 0");
  int64_t count = 0;
  if (step > 0 && stop > start) count = (stop - start - 1) / step + 1;
  if (step < 0 && stop < start) count = (start - stop - 1) / -step + 1;
  if (count > kRangeMax) return rt_.invalid(position, "range is too large (the limit is 100000)");
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) items.emplace_back(start + i * step);
  return rt_.list(std::move(items), position);
}

Value Interpreter::call_strftime(const Arguments& args, Position position) {
  const Text* format = rt_.expect_text(args.get(0, "format"), "strftime_now's format", position);
  if (!format) return Value();
  if (format->bytes.size() > 256)
    return rt_.invalid(position, "strftime_now: the format is too long");
  const std::time_t now = now_unix_s_;
  std::tm parts{};
  gmtime_r(&now, &parts);
  char buffer[1024];
  const size_t n = std::strftime(buffer, sizeof(buffer), format->bytes.c_str(), &parts);
  Text text;
  text.append(std::string_view(buffer, n), !format->marks.empty());
  return rt_.text(std::move(text), position);
}

Value Interpreter::call_global(std::string_view name, const Arguments& args, Position position) {
  if (name == "range") return call_range(args, position);
  if (name == "strftime_now") return call_strftime(args, position);
  if (name == "raise_exception") {
    const Value* message = args.get(0, "message");
    Text text = message ? rt_.str(*message, position) : Text("the template raised an exception");
    return rt_.invalid(position, text.bytes.substr(0, 1000));
  }
  Dict dict;
  for (const Value& value : args.positional) {
    const Dict* from = value.dict();
    if (!from) return rt_.invalid(position, fmt::format("{} takes a dict or named values", name));
    dict.entries.insert(dict.entries.end(), from->entries.begin(), from->entries.end());
  }
  for (const auto& [key, value] : args.named) dict.entries.emplace_back(Value(key), value);
  if (name == "dict") return rt_.dict(std::move(dict), position);
  auto space = std::make_shared<Namespace>();
  for (auto& [key, value] : dict.entries) {
    if (value.holds_namespace())
      return rt_.fail(ErrorCode::unimplemented, position,
                      "unsupported: a namespace inside a namespace");
    if (!rt_.step(position, static_cast<int64_t>(space->entries.size() / 16))) return Value();
    space->set(rt_.str(key, position).bytes, std::move(value));
  }
  return Value(std::move(space));
}

}  // namespace chainpump::models::chat
