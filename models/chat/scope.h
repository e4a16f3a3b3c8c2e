// Names in force while a template renders: scopes as jinja2 has them (for, macro, call, filter,
// with and block set open one; if does not). All scopes of a rendering live until its end, because
// a macro may outlast the loop it was defined in. One thread.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/chat/value.h"

namespace chainpump::models::chat {

class Scope {
 public:
  explicit Scope(Scope* parent) : parent_(parent) {}

  void set(std::string_view name, Value value) {
    for (auto& [key, old] : names_) {
      if (key != name) continue;
      old = std::move(value);
      return;
    }
    names_.emplace_back(std::string(name), std::move(value));
  }
  /// Null if no scope from here up has the name.
  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_)
      for (const auto& [key, value] : scope->names_)
        if (key == name) return &value;
    return nullptr;
  }
  /// A macro defined here keeps this scope and those above as they are.
  void capture() {
    for (Scope* scope = this; scope != nullptr && !scope->captured_; scope = scope->parent_)
      scope->captured_ = true;
  }
  bool captured() const { return captured_; }
  void clear() { names_.clear(); }

 private:
  Scope* parent_;
  bool captured_ = false;
  std::vector<std::pair<std::string, Value>> names_;
};

}  // namespace chainpump::models::chat
