// The parser's state, shared by its two halves: statements (parser.cc) and expressions
// (parse_expression.cc). An error sticks: everything after it returns at once. One thread.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "models/chat/ast.h"

namespace chainpump::models::chat {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body parse();
  bool failed() const { return error_.has_value(); }
  Error take_error() { return std::move(*error_); }

 private:
  static constexpr int kNestingMax = 200;
  static constexpr int kHeightMax = 400;

  // Statements.
  Body parse_body(std::initializer_list<std::string_view> until);
  std::unique_ptr<Stmt> parse_statement();
  std::unique_ptr<Stmt> parse_if();
  std::unique_ptr<Stmt> parse_for();
  std::unique_ptr<Stmt> parse_set();
  std::unique_ptr<Stmt> parse_macro();
  std::unique_ptr<Stmt> parse_call_block();
  std::unique_ptr<Stmt> parse_filter_block();
  std::unique_ptr<Stmt> parse_with();
  void parse_parameters(Macro& macro);
  ExprPtr parse_target(bool with_attribute);
  Body parse_body_to(std::string_view end);
  std::unique_ptr<Stmt> make_stmt(StmtKind kind);

  // Expressions, from the loosest binding to the tightest.
  ExprPtr parse_tuple(bool with_condition);
  ExprPtr parse_expression(bool with_condition = true);
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_comparison();
  ExprPtr parse_sum();
  ExprPtr parse_concatenation();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary();
  ExprPtr parse_number();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr expr);
  ExprPtr parse_filters(ExprPtr expr);
  ExprPtr parse_filter(ExprPtr expr);
  ExprPtr parse_test(ExprPtr expr);
  void parse_arguments(Expr& call);

  ExprPtr make_expr(ExprKind kind, std::string_view text = {});
  void add(Expr& parent, ExprPtr child);
  ExprPtr binary(std::string_view op, ExprPtr left, ExprPtr right);

  // Tokens.
  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token next();
  bool is_op(std::string_view op, size_t ahead = 0) const;
  bool is_name(std::string_view name, size_t ahead = 0) const;
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  void expect(TokenKind kind, std::string_view what);
  std::string take_identifier(std::string_view what);

  void fail(ErrorCode code, Position position, std::string_view what);
  void fail_here(std::string_view expected);

  class Nesting;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  std::optional<Error> error_;
};

/// Counts a level of nesting while it lives.
class Parser::Nesting {
 public:
  explicit Nesting(Parser& parser) : parser_(parser) {
    if (++parser_.nesting_ > kNestingMax)
      parser_.fail(ErrorCode::invalid_argument, parser_.peek().position, "nested too deeply");
  }
  ~Nesting() { --parser_.nesting_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Parser& parser_;
};

}  // namespace chainpump::models::chat
