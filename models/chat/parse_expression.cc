// Expressions, with jinja2's precedence: conditional, or, and, not, comparison, + -, ~, * / // %,
// **, unary, postfix, filters and tests.
#include <charconv>
#include <limits>

#include "models/chat/parser_impl.h"

namespace chainpump::models::chat {

ExprPtr Parser::make_expr(ExprKind kind, std::string_view text) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->text = text;
  expr->position = peek().position;
  return expr;
}

void Parser::add(Expr& parent, ExprPtr child) {
  if (child) {
    parent.height = std::max(parent.height, child->height + 1);
    if (parent.height > kHeightMax)
      fail(ErrorCode::invalid_argument, parent.position,
           "an expression has too many parts (the limit is 400)");
  }
  parent.args.push_back(std::move(child));
}

ExprPtr Parser::binary(std::string_view op, ExprPtr left, ExprPtr right) {
  ExprPtr expr = make_expr(ExprKind::binary, op);
  if (left) expr->position = left->position;
  add(*expr, std::move(left));
  add(*expr, std::move(right));
  return expr;
}

/// One expression, or several with commas.
ExprPtr Parser::parse_tuple(bool with_condition) {
  ExprPtr first = parse_expression(with_condition);
  if (!is_op(",")) return first;
  ExprPtr tuple = make_expr(ExprKind::tuple);
  add(*tuple, std::move(first));
  while (!failed() && take_op(",")) {
    const TokenKind kind = peek().kind;
    if (kind == TokenKind::variable_end || kind == TokenKind::block_end || is_op(")")) break;
    add(*tuple, parse_expression(with_condition));
  }
  return tuple;
}

ExprPtr Parser::parse_expression(bool with_condition) {
  const Nesting nesting(*this);
  if (failed()) return make_expr(ExprKind::literal);
  return with_condition ? parse_conditional() : parse_or();
}

ExprPtr Parser::parse_conditional() {
  ExprPtr expr = parse_or();
  while (!failed() && is_name("if")) {
    ExprPtr conditional = make_expr(ExprKind::conditional);
    next();
    add(*conditional, parse_or());
    add(*conditional, std::move(expr));
    add(*conditional, take_name("else") ? parse_expression() : nullptr);
    expr = std::move(conditional);
  }
  return expr;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (!failed() && take_name("or")) left = binary("or", std::move(left), parse_and());
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (!failed() && take_name("and")) left = binary("and", std::move(left), parse_not());
  return left;
}

ExprPtr Parser::parse_not() {
  const Nesting nesting(*this);
  if (failed() || !is_name("not")) return parse_comparison();
  ExprPtr expr = make_expr(ExprKind::unary, "not");
  next();
  add(*expr, parse_not());
  return expr;
}

ExprPtr Parser::parse_comparison() {
  ExprPtr first = parse_sum();
  ExprPtr expr;
  while (!failed()) {
    std::string op;
    const bool symbol =
        is_op("==") || is_op("!=") || is_op("<") || is_op("<=") || is_op(">") || is_op(">=");
    if (symbol || is_name("in")) {
      op = next().text;
    } else if (is_name("not") && is_name("in", 1)) {
      next();
      next();
      op = "not in";
    } else {
      break;
    }
    if (!expr) {
      expr = make_expr(ExprKind::comparison);
      expr->position = first->position;
      add(*expr, std::move(first));
    }
    expr->ops.push_back(std::move(op));
    add(*expr, parse_sum());
  }
  return expr ? std::move(expr) : std::move(first);
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concatenation();
  while (!failed() && (is_op("+") || is_op("-"))) {
    const std::string op = next().text;
    left = binary(op, std::move(left), parse_concatenation());
  }
  return left;
}

ExprPtr Parser::parse_concatenation() {
  ExprPtr left = parse_product();
  while (!failed() && take_op("~")) left = binary("~", std::move(left), parse_product());
  return left;
}

ExprPtr Parser::parse_product() {
  ExprPtr left = parse_power();
  while (!failed() && (is_op("*") || is_op("/") || is_op("//") || is_op("%"))) {
    const std::string op = next().text;
    left = binary(op, std::move(left), parse_power());
  }
  return left;
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (!failed() && take_op("**")) left = binary("**", std::move(left), parse_unary(true));
  return left;
}

ExprPtr Parser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  ExprPtr expr;
  if (!failed() && (is_op("-") || is_op("+"))) {
    expr = make_expr(ExprKind::unary, peek().text);
    next();
    add(*expr, parse_unary(false));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filter ? parse_filters(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::parse_number() {
  ExprPtr expr = make_expr(ExprKind::literal);
  const Token token = next();
  const char* end = token.text.data() + token.text.size();
  if (token.kind == TokenKind::real) {
    double value = 0;
    std::from_chars(token.text.data(), end, value);
    expr->value = Value(value);
    return expr;
  }
  int64_t value = 0;
  if (std::from_chars(token.text.data(), end, value).ec != std::errc())
    fail(ErrorCode::unimplemented, token.position, "an integer of more than 64 bits");
  expr->value = Value(value);
  return expr;
}

ExprPtr Parser::parse_primary() {
  const Token& token = peek();
  switch (token.kind) {
    case TokenKind::name: {
      const std::string& name = token.text;
      ExprPtr expr = make_expr(ExprKind::literal);
      if (name == "true" || name == "True") {
        expr->value = Value(true);
      } else if (name == "false" || name == "False") {
        expr->value = Value(false);
      } else if (name == "none" || name == "None") {
        expr->value = Value(None{});
      } else {
        expr->kind = ExprKind::name;
        expr->text = name;
      }
      next();
      return expr;
    }
    case TokenKind::string: {
      ExprPtr expr = make_expr(ExprKind::literal);
      std::string text;
      while (peek().kind == TokenKind::string) text += next().text;  // neighbours are one
      expr->value = Value(text);
      return expr;
    }
    case TokenKind::integer:
    case TokenKind::real:
      return parse_number();
    case TokenKind::op: {
      if (is_op("[")) return parse_list();
      if (is_op("{")) return parse_dict();
      if (take_op("(")) {
        if (take_op(")")) return make_expr(ExprKind::tuple);
        ExprPtr expr = parse_tuple(true);
        expect_op(")");
        return expr;
      }
      break;
    }
    case TokenKind::data:
    case TokenKind::variable_begin:
    case TokenKind::variable_end:
    case TokenKind::block_begin:
    case TokenKind::block_end:
    case TokenKind::end:
      break;
  }
  fail_here("an expression");
  return make_expr(ExprKind::literal);
}

ExprPtr Parser::parse_list() {
  ExprPtr list = make_expr(ExprKind::list);
  next();
  while (!failed() && !is_op("]")) {
    add(*list, parse_expression());
    if (!take_op(",")) break;
  }
  expect_op("]");
  return list;
}

ExprPtr Parser::parse_dict() {
  ExprPtr dict = make_expr(ExprKind::dict);
  next();
  while (!failed() && !is_op("}")) {
    add(*dict, parse_expression());
    expect_op(":");
    add(*dict, parse_expression());
    if (!take_op(",")) break;
  }
  expect_op("}");
  return dict;
}

ExprPtr Parser::parse_postfix(ExprPtr expr) {
  while (!failed()) {
    if (is_op("(")) {
      ExprPtr call = make_expr(ExprKind::call);
      call->position = expr->position;
      add(*call, std::move(expr));
      parse_arguments(*call);
      expr = std::move(call);
    } else if (take_op(".")) {
      ExprPtr access = make_expr(ExprKind::attribute);
      add(*access, std::move(expr));
      if (peek().kind == TokenKind::integer) {
        access->kind = ExprKind::subscript;
        add(*access, parse_number());
      } else {
        access->text = take_identifier("an attribute");
      }
      expr = std::move(access);
    } else if (is_op("[")) {
      expr = parse_subscript(std::move(expr));
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr Parser::parse_subscript(ExprPtr operand) {
  ExprPtr expr = make_expr(ExprKind::subscript);
  next();
  add(*expr, std::move(operand));
  const auto ends = [&] { return is_op(":") || is_op("]"); };
  ExprPtr first = ends() ? nullptr : parse_expression();
  if (!is_op(":")) {
    if (!first) fail_here("an index");
    add(*expr, std::move(first));
    if (is_op(","))
      fail(ErrorCode::unimplemented, peek().position, "unsupported: an index of several parts");
    expect_op("]");
    return expr;
  }
  expr->kind = ExprKind::slice;
  add(*expr, std::move(first));
  next();
  add(*expr, ends() ? nullptr : parse_expression());
  add(*expr, take_op(":") && !is_op("]") ? parse_expression() : nullptr);
  expect_op("]");
  return expr;
}

void Parser::parse_arguments(Expr& call) {
  expect_op("(");
  bool first = true;
  while (!failed() && !is_op(")")) {
    if (!first) {
      expect_op(",");
      if (is_op(")")) break;
    }
    first = false;
    if (is_op("*") || is_op("**")) {
      fail(ErrorCode::unimplemented, peek().position,
           fmt::format("unsupported: '{}' in arguments", peek().text));
    } else if (peek().kind == TokenKind::name && is_op("=", 1)) {
      std::string name = next().text;
      next();
      ExprPtr value = parse_expression();
      call.height = std::max(call.height, value->height + 1);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.named.empty()) fail_here("a named argument");
      add(call, parse_expression());
    }
  }
  expect_op(")");
}

/// `expr` null: the chain of a filter or set block, applied to its body.
ExprPtr Parser::parse_filters(ExprPtr expr) {
  while (!failed()) {
    if (take_op("|")) {
      expr = parse_filter(std::move(expr));
    } else if (expr && is_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (expr && is_op("(")) {
      ExprPtr call = make_expr(ExprKind::call);
      add(*call, std::move(expr));
      parse_arguments(*call);
      expr = std::move(call);
    } else {
      break;
    }
  }
  return expr;
}

ExprPtr Parser::parse_filter(ExprPtr operand) {
  ExprPtr filter = make_expr(ExprKind::filter);
  filter->text = take_identifier("a filter's name");
  add(*filter, std::move(operand));
  if (is_op("(")) parse_arguments(*filter);
  return filter;
}

ExprPtr Parser::parse_test(ExprPtr operand) {
  next();  // is
  const bool negated = take_name("not");
  ExprPtr test = make_expr(ExprKind::test);
  test->text = take_identifier("a test's name");
  add(*test, std::move(operand));
  const Token& token = peek();
  if (is_op("(")) {
    parse_arguments(*test);
  } else if ((token.kind == TokenKind::name && !is_name("else") && !is_name("or") &&
              !is_name("and") && !is_name("if") && !is_name("is")) ||
             token.kind == TokenKind::string || token.kind == TokenKind::integer ||
             token.kind == TokenKind::real || is_op("[") || is_op("{")) {
    add(*test, parse_postfix(parse_primary()));
  }
  if (!negated) return test;
  ExprPtr expr = make_expr(ExprKind::unary, "not");
  expr->position = test->position;
  add(*expr, std::move(test));
  return expr;
}

}  // namespace chainpump::models::chat
