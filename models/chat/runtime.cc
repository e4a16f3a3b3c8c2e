#include "models/chat/runtime.h"

#include <algorithm>
#include <utility>

namespace chainpump::models::chat {

const Value* Arguments::get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

Value Runtime::fail(ErrorCode code, Position position, std::string_view what) {
  if (!error_)
    error_ = make_error(code, "template:{}:{}: {}", position.line, position.column, what);
  return Value();
}

bool Runtime::step(Position position, int64_t steps) {
  if (failed()) return false;
  budget.spend(steps);
  if (!budget.spent()) return true;
  invalid(position, budget.steps_spent() ? "the template takes too many steps"
                                         : "the template makes too much text");
  return false;
}

Value Runtime::text(Text text, Position position) {
  const size_t bytes = text.bytes.size();
  if (bytes > kTextBytesMax) return invalid(position, "a string grows beyond 16 MiB");
  budget.spend_bytes(static_cast<int64_t>(bytes));
  if (!step(position, static_cast<int64_t>(text.marks.size() / 4))) return Value();
  return Value(std::move(text));
}

Value Runtime::list(std::vector<Value> items, Position position, ListKind kind) {
  if (items.size() > kListItemsMax) return invalid(position, "a list grows beyond 10^6 items");
  if (!step(position, static_cast<int64_t>(items.size() / 2))) return Value();
  List list;
  list.items = std::move(items);
  list.kind = kind;
  Value value(std::move(list));
  if (value.height() > kValueHeightMax) return invalid(position, "lists nest beyond 100 levels");
  return value;
}

Value Runtime::dict(Dict dict, Position position) {
  if (!step(position, static_cast<int64_t>(dict.entries.size()))) return Value();
  Value value(std::move(dict));
  if (value.height() > kValueHeightMax) return invalid(position, "dicts nest beyond 100 levels");
  return value;
}

Text Runtime::str(const Value& value, Position position) {
  Text out;
  append_str(value, out, budget);
  if (!value.text()) step(position, static_cast<int64_t>(out.bytes.size() / 8));
  return step(position) ? out : Text();
}

std::vector<Value> Runtime::items_of(const Value& value, Position position) {
  std::vector<Value> out;
  if (const List* list = value.list()) {
    if (!use_generator(value, position)) return {};
    out = list->items;
  } else if (const Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->entries) out.push_back(key);
  } else if (const Text* text = value.text()) {
    if (!step(position, static_cast<int64_t>(text->bytes.size()))) return {};
    for (size_t at = 0; at < text->bytes.size();) {
      const size_t next = at + character_at(text->bytes, at).bytes;
      Text character;
      character.append(*text, at, next);
      out.emplace_back(std::move(character));
      at = next;
    }
  } else if (!value.is_undefined()) {
    invalid(position, fmt::format("'{}' is not iterable", value.type_name()));
  }
  step(position, static_cast<int64_t>(out.size() / 4));
  return out;
}

bool Runtime::use_generator(const Value& value, Position position) {
  if (!value.is_generator()) return true;
  if (std::exchange(value.list()->is_used, true))
    invalid(position, "a generator gives its items only once; make a list of it");
  return !failed();
}

const Text* Runtime::expect_text(const Value* value, std::string_view what, Position position) {
  if (value && value->text()) return value->text();
  invalid(position,
          fmt::format("{} must be a string, not {}", what, value ? value->type_name() : "missing"));
  return nullptr;
}

std::optional<int64_t> Runtime::expect_integer(const Value* value, std::string_view what,
                                               Position position) {
  if (value && value->integer()) return value->integer();
  invalid(position, fmt::format("{} must be an integer, not {}", what,
                                value ? value->type_name() : "missing"));
  return std::nullopt;
}

bool Runtime::pay_search(std::string_view haystack, std::string_view needle, Position position) {
  const size_t work = haystack.size() * std::min<size_t>(needle.size(), 256) / 64;
  return step(position, static_cast<int64_t>(work));
}

bool Runtime::contains(const Value& haystack, const Value& needle, Position position) {
  if (const Text* text = haystack.text()) {
    const Text* part = expect_text(&needle, "what is sought in a string", position);
    if (!part || !pay_search(text->bytes, part->bytes, position)) return false;
    return find_bytes(text->bytes, part->bytes) != std::string::npos;
  }
  const auto is_needle = [&](const Value& item) { return equal(item, needle, budget); };
  if (const List* list = haystack.list())
    return use_generator(haystack, position) &&
           std::any_of(list->items.begin(), list->items.end(), is_needle) && step(position);
  if (const Dict* dict = haystack.dict())
    return std::any_of(dict->entries.begin(), dict->entries.end(),
                       [&](const auto& entry) { return is_needle(entry.first); }) &&
           step(position);
  if (!haystack.is_undefined())
    invalid(position, fmt::format("'in' needs a container, not {}", haystack.type_name()));
  return false;
}

namespace {

Value loop_attribute(const Loop& loop, std::string_view name) {
  const size_t n = loop.items->size();
  const auto number = [](size_t value) { return Value(static_cast<int64_t>(value)); };
  if (name == "index") return number(loop.index + 1);
  if (name == "index0") return number(loop.index);
  if (name == "revindex") return number(n - loop.index);
  if (name == "revindex0") return number(n - loop.index - 1);
  if (name == "first") return Value(loop.index == 0);
  if (name == "last") return Value(loop.index + 1 == n);
  if (name == "length") return number(n);
  if (name == "depth") return Value(static_cast<int64_t>(loop.depth));
  if (name == "depth0") return Value(static_cast<int64_t>(loop.depth - 1));
  if (name == "previtem" && loop.index > 0) return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && loop.index + 1 < n) return (*loop.items)[loop.index + 1];
  return Value(Undefined{fmt::format("loop.{}", name)});
}

/// Python's negative indices; nothing if out of range.
std::optional<size_t> index_within(int64_t index, size_t size) {
  const auto n = static_cast<int64_t>(size);
  if (index < 0) index += n;
  if (index < 0 || index >= n) return std::nullopt;
  return static_cast<size_t>(index);
}

}  // namespace

Value Runtime::attribute(const Value& value, std::string_view name, Position position) {
  if (const Undefined* u = value.undefined())
    return invalid(position, fmt::format("'{}' is undefined (reading .{})", u->name, name));
  if (const Loop* loop = value.loop()) {
    if (name == "cycle" || name == "changed")
      return fail(ErrorCode::unimplemented, position, fmt::format("unsupported: loop.{}", name));
    return loop_attribute(*loop, name);
  }
  if (const Namespace* space = value.space()) {
    if (const Value* found = space->find(name)) return *found;
  } else if (has_method(value, name)) {
    Callable method;
    method.name = name;
    method.self = value;
    return Value(std::move(method));
  } else if (const Dict* dict = value.dict()) {
    if (!step(position, static_cast<int64_t>(dict->entries.size() / 16))) return Value();
    if (const Value* found = dict->find(name)) return *found;
  }
  return Value(Undefined{std::string(name)});
}

Value Runtime::item(const Value& value, const Value& key, Position position) {
  if (const Undefined* u = value.undefined())
    return invalid(position, fmt::format("'{}' is undefined", u->name));
  if (const Dict* dict = value.dict()) {
    for (const auto& [k, found] : dict->entries)
      if (equal(k, key, budget)) return found;
    if (!step(position)) return Value();
  } else if (const auto index = key.integer()) {
    if (const List* list = value.list(); list && !value.is_generator()) {
      if (const auto i = index_within(*index, list->items.size())) return list->items[*i];
    } else if (const Text* text = value.text()) {
      if (!step(position, static_cast<int64_t>(text->bytes.size() / 16))) return Value();
      const auto i = index_within(*index, count_characters(text->bytes));
      if (i) {
        const size_t at = offset_of_character(text->bytes, *i);
        Text character;
        character.is_safe = text->is_safe;
        character.append(*text, at, at + character_at(text->bytes, at).bytes);
        return Value(std::move(character));
      }
    }
  }
  if (const Text* name = key.text()) return attribute(value, name->bytes, position);
  Text name = str(key, position);
  return Value(Undefined{std::move(name.bytes)});
}

}  // namespace chainpump::models::chat
