// The parsed template. Nodes own their children; nesting is bounded by the parser. Immutable after
// parsing; any thread.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/chat/lexer.h"
#include "models/chat/value.h"

namespace chainpump::models::chat {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
using ExprList = std::vector<ExprPtr>;

enum class ExprKind : uint8_t {
  literal,      // value
  name,         // text
  list,         // args
  tuple,        // args
  dict,         // args: key, value, key, value ...
  attribute,    // args[0] . text
  subscript,    // args[0] [ args[1] ]
  slice,        // args[0] [ args[1] : args[2] : args[3] ], each of the last three may be null
  call,         // args[0] ( args[1...], named )
  filter,       // args[0] | text ( args[1...], named ); args[0] is null in a filter block
  test,         // args[0] is text ( args[1...] )
  unary,        // text: - + not
  binary,       // text: + - * / // % ** ~ and or
  comparison,   // args[0] ops[0] args[1] ops[1] args[2] ...
  conditional,  // args[1] if args[0] else args[2] (may be null)
};

struct Expr {
  ExprKind kind = ExprKind::literal;
  Position position;
  std::string text;
  Value value;
  ExprList args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> ops;
  int height = 1;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

/// `args` without defaults come first.
struct Macro {
  std::string name;
  Position position;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // default, or null
  Body body;
};

enum class StmtKind : uint8_t {
  data,          // text
  print,         // expr
  if_else,       // branches: condition (null: else) and body
  for_loop,      // target in expr, if filter: body, else: orelse
  set,           // target = expr
  set_block,     // target = body, through expr (a filter chain, or null)
  macro,         // macro
  call_block,    // macro (the caller), expr (the call)
  filter_block,  // expr (a filter chain over null), body
  scoped,        // body, with `target` names bound to `values`
  loop_break,
  loop_continue,
};

struct Stmt {
  StmtKind kind = StmtKind::data;
  Position position;
  Value text;
  ExprPtr target;  // name, tuple of names, or attribute of a namespace
  ExprPtr expr;
  ExprPtr filter;
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<std::pair<ExprPtr, ExprPtr>> bindings;
  Body body;
  Body orelse;
  std::shared_ptr<const Macro> macro;
};

}  // namespace chainpump::models::chat
