// Runs a parsed template over its variables. Recursive over the tree, with bounded depth, steps and
// text; an error sticks and ends the run. One rendering, one thread.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "models/chat/ast.h"
#include "models/chat/runtime.h"
#include "models/chat/scope.h"

namespace chainpump::models::chat {

class Interpreter {
 public:
  /// `now_unix_s` is what strftime_now shows, in UTC.
  explicit Interpreter(int64_t now_unix_s) : now_unix_s_(now_unix_s) {
    scope_ = new_scope(nullptr);
  }

  void set(std::string_view name, Value value) { scope_->set(name, std::move(value)); }
  Result<Text> run(const Body& body);

 private:
  enum class Flow { normal, loop_break, loop_continue };
  static constexpr int kDepthMax = 1000;
  class Depth;
  class Output;

  // Statements (interpreter.cc).
  Flow run_body(const Body& body);
  Flow run_stmt(const Stmt& stmt);
  Flow run_if(const Stmt& stmt);
  void run_for(const Stmt& stmt);
  std::vector<Value> loop_items(const Stmt& stmt);
  void run_set(const Stmt& stmt);
  void run_call_block(const Stmt& stmt);
  void run_scoped(const Stmt& stmt);
  Text captured_body(const Body& body);
  Value filtered_body(const Stmt& stmt);
  void assign(const Expr& target, Value value);
  void print(const Text& text, Position position);
  Value call_macro(const Callable& callable, const Arguments& args, const Value* caller,
                   Position position);

  // Expressions (evaluate.cc).
  Value evaluate(const Expr& expr);
  Value evaluate_kind(const Expr& expr);
  Value evaluate_name(const Expr& expr);
  Value evaluate_dict(const Expr& expr);
  Value evaluate_unary(const Expr& expr);
  Value evaluate_binary(const Expr& expr);
  Value evaluate_comparison(const Expr& expr);
  bool compare_once(std::string_view op, const Value& a, const Value& b, Position position);
  Value evaluate_slice(const Expr& expr);
  Value evaluate_call(const Expr& expr, const Value* caller);
  Value evaluate_filter(const Expr& expr);
  Value evaluate_test(const Expr& expr);
  std::vector<Value> evaluate_all(const ExprList& exprs, size_t from);
  Arguments evaluate_arguments(const Expr& expr);
  Value call_global(std::string_view name, const Arguments& args, Position position);
  Value call_range(const Arguments& args, Position position);
  Value call_strftime(const Arguments& args, Position position);

  Scope* new_scope(Scope* parent);

  Runtime rt_;
  int64_t now_unix_s_;
  std::deque<Scope> scopes_;
  Scope* scope_ = nullptr;
  Text* out_ = nullptr;
  int depth_ = 0;
  int loop_depth_ = 0;
  const Value* block_operand_ = nullptr;  // what a filter block's chain applies to
};

/// Counts a level of recursion while it lives.
class Interpreter::Depth {
 public:
  Depth(Interpreter& interpreter, Position position) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > kDepthMax)
      interpreter_.rt_.invalid(position, "macros call each other too deeply");
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

}  // namespace chainpump::models::chat
