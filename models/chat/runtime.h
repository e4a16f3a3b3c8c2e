// What filters, tests, methods and the interpreter share while one template renders: the budget,
// the first error (it sticks: everything after it returns at once), and values made within limits.
// One thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "models/chat/lexer.h"
#include "models/chat/value.h"

namespace chainpump::models::chat {

// A hostile template ends within a second; the largest honest prompts stay far below.
inline constexpr int64_t kStepsMax = 4'000'000;
inline constexpr int64_t kBytesMax = int64_t{256} << 20;  // made in all
inline constexpr size_t kListItemsMax = 1'000'000;
inline constexpr int kValueHeightMax = 100;

/// Arguments of a call, evaluated.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  /// By position or by name; null if not given.
  const Value* get(size_t index, std::string_view name) const;
};

class Runtime {
 public:
  Budget budget{kStepsMax, kBytesMax};

  bool failed() const { return error_.has_value(); }
  const Error& error() const { return *error_; }
  /// Records the first error; the value is undefined.
  Value fail(ErrorCode code, Position position, std::string_view what);
  Value invalid(Position position, std::string_view what) {
    return fail(ErrorCode::invalid_argument, position, what);
  }
  /// Takes steps; false (and an error) when there are no more or it has failed before.
  bool step(Position position, int64_t steps = 1);

  Value text(Text text, Position position);
  Value list(std::vector<Value> items, Position position, ListKind kind = ListKind::list);
  Value dict(Dict dict, Position position);
  /// str(value).
  Text str(const Value& value, Position position);
  /// What iterating gives: items, keys, characters; an error if there is no such thing.
  std::vector<Value> items_of(const Value& value, Position position);
  /// The text, or an error that names `what`.
  const Text* expect_text(const Value* value, std::string_view what, Position position);
  std::optional<int64_t> expect_integer(const Value* value, std::string_view what,
                                        Position position);
  /// `needle in haystack`.
  bool contains(const Value& haystack, const Value& needle, Position position);
  /// Counts a search through text against the steps.
  bool pay_search(std::string_view haystack, std::string_view needle, Position position);
  /// value.name and value["name"] as jinja2 looks them up; undefined if there is none.
  Value attribute(const Value& value, std::string_view name, Position position);
  Value item(const Value& value, const Value& key, Position position);

 private:
  /// False (and an error) if it is a generator whose items were taken before.
  bool use_generator(const Value& value, Position position);

  std::optional<Error> error_;
};

/// `operand | name(arguments)`.
Value apply_filter(Runtime& runtime, std::string_view name, const Value& operand,
                   const Arguments& arguments, Position position);
/// `operand is name(arguments)`.
bool apply_test(Runtime& runtime, std::string_view name, const Value& operand,
                const Arguments& arguments, Position position);
/// `self.name(arguments)`.
Value call_method(Runtime& runtime, const Value& self, std::string_view name,
                  const Arguments& arguments, Position position);
/// Whether values of this kind have such a method in Python.
bool has_method(const Value& self, std::string_view name);
Value binary_operation(Runtime& runtime, std::string_view op, const Value& a, const Value& b,
                       Position position);

}  // namespace chainpump::models::chat
