#include "models/chat/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace chainpump::models::chat {

Value::Value(List list) {
  for (const Value& item : list.items) {
    list.height = std::max(list.height, item.height() + 1);
    list.holds_namespace |= item.holds_namespace();
  }
  v_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Dict dict) {
  for (const auto& [key, item] : dict.entries) {
    dict.height = std::max({dict.height, key.height() + 1, item.height() + 1});
    dict.holds_namespace |= item.holds_namespace();
  }
  v_ = std::make_shared<const Dict>(std::move(dict));
}

Value::Value(Callable callable) : v_(std::make_shared<const Callable>(std::move(callable))) {}

std::optional<int64_t> Value::integer() const {
  if (const auto* i = std::get_if<int64_t>(&v_)) return *i;
  if (const bool* b = boolean()) return *b ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const auto* d = std::get_if<double>(&v_)) return *d;
  if (const auto i = integer()) return static_cast<double>(*i);
  return std::nullopt;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const auto n = number()) return *n != 0;
  if (const Text* t = text()) return !t->bytes.empty();
  if (const List* l = list()) return is_generator() || !l->items.empty();
  if (const Dict* d = dict()) return !d->entries.empty();
  return true;
}

bool Value::is_generator() const { return list() && list()->kind == ListKind::generator; }

int Value::height() const {
  if (const List* l = list()) return l->height;
  if (const Dict* d = dict()) return d->height;
  if (const Callable* c = callable()) return c->self.height() + 1;
  return 0;
}

bool Value::holds_namespace() const {
  if (const List* l = list()) return l->holds_namespace;
  if (const Dict* d = dict()) return d->holds_namespace;
  if (const Callable* c = callable()) return c->self.holds_namespace();
  // A loop object holds a list that may hold one; it is never kept by templates in practice.
  return space() != nullptr || loop() != nullptr;
}

std::string_view Value::type_name() const {
  static constexpr std::string_view kNames[] = {"undefined", "None",     "bool", "int",
                                                "float",     "str",      "list", "dict",
                                                "namespace", "callable", "loop"};
  if (const List* l = list(); l && l->kind == ListKind::tuple) return "tuple";
  if (is_generator()) return "generator";
  return kNames[v_.index()];
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, value] : entries)
    if (const Text* t = k.text(); t && t->bytes == key) return &value;
  return nullptr;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [k, value] : entries)
    if (k == name) return &value;
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [k, old] : entries) {
    if (k != name) continue;
    old = std::move(value);
    return;
  }
  entries.emplace_back(std::string(name), std::move(value));
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  if (!budget.spend(1)) return false;
  if (const auto x = a.number()) {
    const auto y = b.number();
    if (a.integer() && b.integer()) return *a.integer() == *b.integer();
    return y && *x == *y;
  }
  if (const Text* x = a.text()) {
    const Text* y = b.text();
    return y && x->bytes == y->bytes;
  }
  if (const List* x = a.list()) {
    const List* y = b.list();
    if (a.is_generator()) return x == y;
    if (!y || x->kind != y->kind || x->items.size() != y->items.size()) return false;
    for (size_t i = 0; i < x->items.size(); ++i)
      if (!equal(x->items[i], y->items[i], budget)) return false;
    return true;
  }
  if (const Dict* x = a.dict()) {
    const Dict* y = b.dict();
    if (!y || x->entries.size() != y->entries.size()) return false;
    for (const auto& [key, value] : x->entries) {
      bool found = false;
      for (const auto& [other_key, other] : y->entries) {
        if (!equal(key, other_key, budget)) continue;
        found = equal(value, other, budget);
        break;
      }
      if (!found) return false;
    }
    return true;
  }
  if (a.space()) return a.space() == b.space();
  if (a.callable()) return a.callable() == b.callable();
  if (a.loop()) return a.loop() == b.loop();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::optional<int> compare(const Value& a, const Value& b, Budget& budget) {
  const auto sign = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : 0; };
  if (!budget.spend(1)) return 0;
  if (a.integer() && b.integer()) return sign(*a.integer(), *b.integer());
  if (a.number() && b.number()) return sign(*a.number(), *b.number());
  if (a.text() && b.text()) return sign(a.text()->bytes.compare(b.text()->bytes), 0);
  const List* x = a.list();
  const List* y = b.list();
  if (!x || !y || x->kind != y->kind || a.is_generator()) return std::nullopt;
  for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i) {
    if (equal(x->items[i], y->items[i], budget)) continue;
    return compare(x->items[i], y->items[i], budget);
  }
  return sign(x->items.size(), y->items.size());
}

}  // namespace chainpump::models::chat
