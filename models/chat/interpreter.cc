#include "models/chat/interpreter.h"

#include <utility>

namespace chainpump::models::chat {

Scope* Interpreter::new_scope(Scope* parent) { return &scopes_.emplace_back(parent); }

Result<Text> Interpreter::run(const Body& body) {
  Text out;
  out_ = &out;
  run_body(body);
  if (rt_.failed()) return rt_.error();
  return out;
}

void Interpreter::print(const Text& text, Position position) {
  if (!rt_.step(position)) return;
  rt_.budget.spend_bytes(static_cast<int64_t>(text.bytes.size()));
  if (out_->bytes.size() + text.bytes.size() > kTextBytesMax) {
    rt_.invalid(position, "the output grows beyond 16 MiB");
    return;
  }
  out_->append(text);
}

Interpreter::Flow Interpreter::run_body(const Body& body) {
  for (const auto& stmt : body) {
    const Flow flow = run_stmt(*stmt);
    if (flow != Flow::normal || rt_.failed()) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_stmt(const Stmt& stmt) {
  const Depth depth(*this, stmt.position);
  if (!rt_.step(stmt.position)) return Flow::normal;
  switch (stmt.kind) {
    case StmtKind::data:
      print(*stmt.text.text(), stmt.position);
      break;
    case StmtKind::print: {
      const Value value = evaluate(*stmt.expr);
      if (value.text()) {
        print(*value.text(), stmt.position);
      } else {
        print(rt_.str(value, stmt.position), stmt.position);
      }
      break;
    }
    case StmtKind::if_else:
      return run_if(stmt);
    case StmtKind::for_loop:
      run_for(stmt);
      break;
    case StmtKind::set:
    case StmtKind::set_block:
      run_set(stmt);
      break;
    case StmtKind::macro: {
      Callable macro;
      macro.macro = stmt.macro.get();
      macro.scope = scope_;
      macro.name = stmt.macro->name;
      scope_->capture();
      scope_->set(stmt.macro->name, Value(std::move(macro)));
      break;
    }
    case StmtKind::call_block:
      run_call_block(stmt);
      break;
    case StmtKind::filter_block: {
      const Value value = filtered_body(stmt);
      print(rt_.str(value, stmt.position), stmt.position);
      break;
    }
    case StmtKind::scoped:
      run_scoped(stmt);
      break;
    case StmtKind::loop_break:
    case StmtKind::loop_continue:
      if (loop_depth_ == 0) rt_.invalid(stmt.position, "break or continue outside of a loop");
      return stmt.kind == StmtKind::loop_break ? Flow::loop_break : Flow::loop_continue;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_if(const Stmt& stmt) {
  for (const auto& [condition, body] : stmt.branches)
    if (!condition || evaluate(*condition).truth())
      return rt_.failed() ? Flow::normal : run_body(body);
  return Flow::normal;
}

/// The items a loop goes over; its `if` sees the loop's variables but not `loop`.
std::vector<Value> Interpreter::loop_items(const Stmt& stmt) {
  std::vector<Value> items = rt_.items_of(evaluate(*stmt.expr), stmt.position);
  if (!stmt.filter || rt_.failed()) return items;
  Scope* outer = std::exchange(scope_, new_scope(scope_));
  std::vector<Value> kept;
  for (Value& item : items) {
    assign(*stmt.target, item);
    if (!evaluate(*stmt.filter).truth()) continue;
    if (rt_.failed()) break;
    kept.push_back(std::move(item));
  }
  scope_ = outer;
  return kept;
}

void Interpreter::run_for(const Stmt& stmt) {
  const auto items = std::make_shared<const std::vector<Value>>(loop_items(stmt));
  if (rt_.failed()) return;
  Scope* outer = scope_;
  if (items->empty()) {
    scope_ = new_scope(outer);
    run_body(stmt.orelse);
    scope_ = outer;
    return;
  }
  ++loop_depth_;
  Scope* inner = new_scope(outer);
  for (size_t i = 0; i < items->size(); ++i) {
    if (inner->captured()) inner = new_scope(outer);
    inner->clear();
    scope_ = inner;
    assign(*stmt.target, (*items)[i]);
    Loop loop{items, i, loop_depth_};
    inner->set("loop", Value(std::make_shared<const Loop>(std::move(loop))));
    const Flow flow = run_body(stmt.body);
    scope_ = outer;
    if (flow == Flow::loop_break || !rt_.step(stmt.position)) break;
  }
  inner->clear();
  --loop_depth_;
}

void Interpreter::assign(const Expr& target, Value value) {
  if (target.kind == ExprKind::name) return scope_->set(target.text, std::move(value));
  if (target.kind == ExprKind::tuple) {
    std::vector<Value> items = rt_.items_of(value, target.position);
    if (items.size() != target.args.size()) {
      rt_.invalid(target.position,
                  fmt::format("{} names for {} values", target.args.size(), items.size()));
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) assign(*target.args[i], std::move(items[i]));
    return;
  }
  const Value* found = scope_->find(target.args[0]->text);
  Namespace* space = found ? found->space() : nullptr;
  if (space == nullptr) {
    rt_.invalid(target.position, "only attributes of a namespace can be set");
  } else if (value.holds_namespace()) {
    rt_.fail(ErrorCode::unimplemented, target.position,
             "unsupported: a namespace inside a namespace");
  } else if (rt_.step(target.position, static_cast<int64_t>(space->entries.size() / 16))) {
    space->set(target.text, std::move(value));
  }
}

/// What a body prints, in a scope of its own.
Text Interpreter::captured_body(const Body& body) {
  Text text;
  Scope* outer = std::exchange(scope_, new_scope(scope_));
  Text* outer_out = std::exchange(out_, &text);
  run_body(body);
  out_ = outer_out;
  scope_ = outer;
  return text;
}

/// A block's text through its chain of filters.
Value Interpreter::filtered_body(const Stmt& stmt) {
  Value text = rt_.text(captured_body(stmt.body), stmt.position);
  if (!stmt.expr || rt_.failed()) return text;
  const Value* outer = std::exchange(block_operand_, &text);
  Value value = evaluate(*stmt.expr);
  block_operand_ = outer;
  return value;
}

void Interpreter::run_set(const Stmt& stmt) {
  Value value = stmt.kind == StmtKind::set ? evaluate(*stmt.expr) : filtered_body(stmt);
  if (!rt_.failed()) assign(*stmt.target, std::move(value));
}

void Interpreter::run_call_block(const Stmt& stmt) {
  Callable caller;
  caller.macro = stmt.macro.get();
  caller.scope = scope_;
  caller.name = "caller";
  scope_->capture();
  const Value caller_value(std::move(caller));
  const Value result = evaluate_call(*stmt.expr, &caller_value);
  print(rt_.str(result, stmt.position), stmt.position);
}

void Interpreter::run_scoped(const Stmt& stmt) {
  Scope* inner = new_scope(scope_);
  for (const auto& [name, value] : stmt.bindings) inner->set(name->text, evaluate(*value));
  Scope* outer = std::exchange(scope_, inner);
  run_body(stmt.body);
  scope_ = outer;
}

Value Interpreter::call_macro(const Callable& callable, const Arguments& args, const Value* caller,
                              Position position) {
  const Macro& macro = *callable.macro;
  if (args.positional.size() > macro.parameters.size())
    return rt_.invalid(position,
                       fmt::format("macro '{}' takes {} arguments, {} are given", macro.name,
                                   macro.parameters.size(), args.positional.size()));
  for (const auto& [name, value] : args.named) {
    bool known = false;
    for (const auto& parameter : macro.parameters) known |= parameter.first == name;
    if (!known)
      return rt_.invalid(position,
                         fmt::format("macro '{}' has no parameter '{}'", macro.name, name));
  }
  Scope* outer = std::exchange(scope_, new_scope(callable.scope));
  const int outer_loops = std::exchange(loop_depth_, 0);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    if (const Value* value = args.get(i, name)) {
      scope_->set(name, *value);
    } else {
      scope_->set(name, fallback ? evaluate(*fallback) : Value(Undefined{name}));
    }
  }
  if (caller) scope_->set("caller", *caller);
  Text text;
  Text* outer_out = std::exchange(out_, &text);
  run_body(macro.body);
  out_ = outer_out;
  scope_ = outer;
  loop_depth_ = outer_loops;
  return rt_.text(std::move(text), position);
}

}  // namespace chainpump::models::chat
