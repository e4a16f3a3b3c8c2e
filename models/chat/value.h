// Values of a template, with Python's meaning of truth, equality, order and text. Lists and dicts
// never change once made (as in jinja2's immutable sandbox); only namespaces do, and they cannot
// hold a namespace, so nothing is cyclic. Nesting is bounded, so recursion over values is. One
// thread per rendering.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "models/chat/text.h"

namespace chainpump::models::chat {

struct Macro;
class Scope;
class Value;

struct Undefined {
  std::string name;  // what was missing, for messages
};
struct None {};
struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

class Value {
 public:
  Value() : v_(Undefined{}) {}
  explicit Value(Undefined u) : v_(std::move(u)) {}
  explicit Value(None n) : v_(n) {}
  explicit Value(bool b) : v_(b) {}
  explicit Value(int64_t i) : v_(i) {}
  explicit Value(double d) : v_(d) {}
  explicit Value(Text text) : v_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(std::string_view plain) : Value(Text(plain)) {}
  explicit Value(const char* plain) : Value(Text(plain)) {}
  explicit Value(List list);
  explicit Value(Dict dict);
  explicit Value(std::shared_ptr<Namespace> ns) : v_(std::move(ns)) {}
  explicit Value(Callable callable);
  explicit Value(std::shared_ptr<const Loop> loop) : v_(std::move(loop)) {}

  bool is_undefined() const { return std::holds_alternative<Undefined>(v_); }
  bool is_none() const { return std::holds_alternative<None>(v_); }
  const bool* boolean() const { return std::get_if<bool>(&v_); }
  const Text* text() const { return get<const Text>(); }
  const List* list() const { return get<const List>(); }
  const Dict* dict() const { return get<const Dict>(); }
  Namespace* space() const { return get<Namespace>(); }
  const Callable* callable() const { return get<const Callable>(); }
  const Loop* loop() const { return get<const Loop>(); }
  const Undefined* undefined() const { return std::get_if<Undefined>(&v_); }
  /// An integer, or a boolean as one.
  std::optional<int64_t> integer() const;
  bool is_generator() const;
  bool is_float() const { return std::holds_alternative<double>(v_); }
  /// Any number, booleans included.
  std::optional<double> number() const;

  bool truth() const;
  /// How deep lists and dicts nest: 0 for all else.
  int height() const;
  bool holds_namespace() const;
  /// The kind's name as Python has it, for messages.
  std::string_view type_name() const;

 private:
  template <typename T>
  T* get() const {
    const auto* p = std::get_if<std::shared_ptr<T>>(&v_);
    return p ? p->get() : nullptr;
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Callable>, std::shared_ptr<const Loop>>
      v_;
};

/// A generator is what jinja2's map, select and their kin give: it is always true, has no length
/// and no JSON form, and is gone through once. Ours is computed at once, and refuses a second time.
enum class ListKind : uint8_t { list, tuple, generator };

struct List {
  std::vector<Value> items;
  ListKind kind = ListKind::list;
  mutable bool is_used = false;  // a generator's items were taken
  int height = 1;                // set by Value
  bool holds_namespace = false;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion, keys apart
  int height = 1;
  bool holds_namespace = false;

  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;

  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

/// A macro, a global function, or a method with what it belongs to.
struct Callable {
  const Macro* macro = nullptr;
  Scope* scope = nullptr;  // where the macro was defined
  std::string name;
  Value self;
};

/// What `loop` is inside a for.
struct Loop {
  std::shared_ptr<const std::vector<Value>> items;
  size_t index = 0;
  int depth = 1;
};

inline constexpr size_t kTextBytesMax = size_t{16} << 20;

/// Steps and bytes that are left; shared by everything that works on values.
class Budget {
 public:
  Budget(int64_t steps, int64_t bytes) : steps_(steps), bytes_(bytes) {}
  /// False once the steps are spent.
  bool spend(int64_t steps) { return (steps_ -= steps) >= 0; }
  bool spend_bytes(int64_t bytes) { return (bytes_ -= bytes) >= 0; }
  bool spent() const { return steps_ < 0 || bytes_ < 0; }
  bool steps_spent() const { return steps_ < 0; }

 private:
  int64_t steps_;
  int64_t bytes_;
};

bool equal(const Value& a, const Value& b, Budget& budget);
/// -1, 0, 1; nothing if Python could not order them.
std::optional<int> compare(const Value& a, const Value& b, Budget& budget);
/// str(value), and repr(value), appended; cut once they are longer than any string may be.
void append_str(const Value& value, Text& out, Budget& budget);
void append_repr(const Value& value, Text& out, Budget& budget);
std::string float_repr(double number);

struct JsonStyle {
  bool ensure_ascii = false;
  int64_t indent = -1;  // -1: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
/// As Python's json.dumps, cut likewise. False (and what it was, in `unknown`) if the value has no
/// JSON form.
bool append_json(const Value& value, const JsonStyle& style, int level, Text& out, Budget& budget,
                 std::string& unknown);

}  // namespace chainpump::models::chat
