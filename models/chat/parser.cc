#include "models/chat/parser.h"

#include <algorithm>

#include "models/chat/parser_impl.h"

namespace chainpump::models::chat {

Token Parser::next() {
  const Token token = peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::is_op(std::string_view op, size_t ahead) const {
  return peek(ahead).kind == TokenKind::op && peek(ahead).text == op;
}

bool Parser::is_name(std::string_view name, size_t ahead) const {
  return peek(ahead).kind == TokenKind::name && peek(ahead).text == name;
}

bool Parser::take_op(std::string_view op) {
  if (!is_op(op)) return false;
  next();
  return true;
}

bool Parser::take_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

void Parser::expect_op(std::string_view op) {
  if (!take_op(op)) fail_here(fmt::format("'{}'", op));
}

void Parser::expect_name(std::string_view name) {
  if (!take_name(name)) fail_here(fmt::format("'{}'", name));
}

void Parser::expect(TokenKind kind, std::string_view what) {
  if (peek().kind != kind) return fail_here(what);
  next();
}

std::string Parser::take_identifier(std::string_view what) {
  if (peek().kind == TokenKind::name) return next().text;
  fail_here(what);
  return {};
}

void Parser::fail(ErrorCode code, Position position, std::string_view what) {
  if (!failed())
    error_ = make_error(code, "template:{}:{}: {}", position.line, position.column, what);
  at_ = tokens_.size() - 1;  // nothing more to read: every loop ends
}

void Parser::fail_here(std::string_view expected) {
  const Token& token = peek();
  std::string found;
  switch (token.kind) {
    case TokenKind::data:
      found = "text";
      break;
    case TokenKind::variable_begin:
      found = "'{{'";
      break;
    case TokenKind::variable_end:
      found = "'}}'";
      break;
    case TokenKind::block_begin:
      found = "'{%'";
      break;
    case TokenKind::block_end:
      found = "'%}'";
      break;
    case TokenKind::end:
      found = "the end of the template";
      break;
    case TokenKind::string:
      found = "a string";
      break;
    case TokenKind::name:
    case TokenKind::integer:
    case TokenKind::real:
    case TokenKind::op:
      found = fmt::format("'{}'", token.text);
      break;
  }
  fail(ErrorCode::invalid_argument, token.position,
       fmt::format("expected {}, found {}", expected, found));
}

std::unique_ptr<Stmt> Parser::make_stmt(StmtKind kind) {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->position = peek().position;
  return stmt;
}

Body Parser::parse() {
  Body body = parse_body({});
  if (!failed() && peek().kind != TokenKind::end)
    fail(ErrorCode::invalid_argument, peek().position,
         fmt::format("'{}' without its beginning", peek(1).text));
  return body;
}

/// Up to a block tag of one of these names (not taken), or the end.
Body Parser::parse_body(std::initializer_list<std::string_view> until) {
  Body body;
  const Nesting nesting(*this);
  while (!failed()) {
    const Token& token = peek();
    if (token.kind == TokenKind::end) {
      if (until.size() > 0) fail_here(fmt::format("'{}'", *(until.end() - 1)));
      return body;
    }
    if (token.kind == TokenKind::data) {
      auto stmt = make_stmt(StmtKind::data);
      stmt->text = Value(next().text);
      body.push_back(std::move(stmt));
    } else if (token.kind == TokenKind::variable_begin) {
      auto stmt = make_stmt(StmtKind::print);
      next();
      stmt->expr = parse_tuple(true);
      expect(TokenKind::variable_end, "'}}'");
      body.push_back(std::move(stmt));
    } else {
      const bool ends = std::any_of(until.begin(), until.end(),
                                    [&](std::string_view name) { return is_name(name, 1); });
      if (ends || peek(1).text.starts_with("end")) return body;
      next();
      if (auto stmt = parse_statement()) body.push_back(std::move(stmt));
      if (!failed()) expect(TokenKind::block_end, "'%}'");
    }
  }
  return body;
}

/// A body after a tag's end, and its end tag but for the closing.
Body Parser::parse_body_to(std::string_view end) {
  expect(TokenKind::block_end, "'%}'");
  Body body = parse_body({end});
  expect(TokenKind::block_begin, "'{%'");
  expect_name(end);
  return body;
}

std::unique_ptr<Stmt> Parser::parse_statement() {
  const Token tag = peek();
  if (tag.kind != TokenKind::name) {
    fail_here("a tag's name");
    return nullptr;
  }
  if (tag.text == "if") return parse_if();
  if (tag.text == "for") return parse_for();
  if (tag.text == "set") return parse_set();
  if (tag.text == "macro") return parse_macro();
  if (tag.text == "call") return parse_call_block();
  if (tag.text == "filter") return parse_filter_block();
  if (tag.text == "with") return parse_with();
  if (tag.text == "generation") {  // marks training targets; transparent here
    auto stmt = make_stmt(StmtKind::scoped);
    next();
    stmt->body = parse_body_to("endgeneration");
    return stmt;
  }
  if (tag.text == "break" || tag.text == "continue") {
    auto stmt = make_stmt(tag.text == "break" ? StmtKind::loop_break : StmtKind::loop_continue);
    next();
    return stmt;
  }
  const bool known = tag.text == "include" || tag.text == "import" || tag.text == "from" ||
                     tag.text == "extends" || tag.text == "block" || tag.text == "autoescape" ||
                     tag.text == "do" || tag.text == "trans" || tag.text == "debug";
  fail(known ? ErrorCode::unimplemented : ErrorCode::invalid_argument, tag.position,
       fmt::format("{} '{}'", known ? "unsupported tag" : "unknown tag", tag.text));
  return nullptr;
}

std::unique_ptr<Stmt> Parser::parse_if() {
  auto stmt = make_stmt(StmtKind::if_else);
  next();
  ExprPtr condition = parse_tuple(false);
  while (!failed()) {
    expect(TokenKind::block_end, "'%}'");
    Body body = parse_body({"elif", "else", "endif"});
    stmt->branches.emplace_back(std::move(condition), std::move(body));
    expect(TokenKind::block_begin, "'{%'");
    if (take_name("elif")) {
      condition = parse_tuple(false);
    } else if (take_name("else")) {
      stmt->branches.emplace_back(nullptr, parse_body_to("endif"));
      break;
    } else {
      expect_name("endif");
      break;
    }
  }
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_for() {
  auto stmt = make_stmt(StmtKind::for_loop);
  next();
  stmt->target = parse_target(false);
  expect_name("in");
  stmt->expr = parse_tuple(false);
  if (take_name("if")) stmt->filter = parse_expression();
  if (is_name("recursive"))
    fail(ErrorCode::unimplemented, peek().position, "unsupported: a recursive for");
  expect(TokenKind::block_end, "'%}'");
  stmt->body = parse_body({"else", "endfor"});
  expect(TokenKind::block_begin, "'{%'");
  if (take_name("else")) {
    stmt->orelse = parse_body_to("endfor");
  } else {
    expect_name("endfor");
  }
  return stmt;
}

/// A name, several with commas, or (with_attribute) an attribute of a namespace.
ExprPtr Parser::parse_target(bool with_attribute) {
  const Nesting nesting(*this);
  if (with_attribute && is_op(".", 1)) {
    ExprPtr name = make_expr(ExprKind::name, take_identifier("a name"));
    next();
    ExprPtr target = make_expr(ExprKind::attribute, take_identifier("an attribute"));
    add(*target, std::move(name));
    return target;
  }
  ExprPtr tuple = make_expr(ExprKind::tuple);
  bool is_tuple = false;
  do {
    if (take_op("(")) {
      add(*tuple, parse_target(false));
      expect_op(")");
    } else {
      if (peek().kind != TokenKind::name) {
        if (tuple->args.empty()) fail_here("a name");
        break;
      }
      ExprPtr name = make_expr(ExprKind::name);
      name->text = next().text;
      add(*tuple, std::move(name));
    }
    is_tuple |= is_op(",");
  } while (!failed() && take_op(","));
  if (is_tuple || tuple->args.empty()) return tuple;
  return std::move(tuple->args[0]);
}

std::unique_ptr<Stmt> Parser::parse_set() {
  auto stmt = make_stmt(StmtKind::set);
  next();
  stmt->target = parse_target(true);
  if (take_op("=")) {
    stmt->expr = parse_tuple(true);
    return stmt;
  }
  stmt->kind = StmtKind::set_block;
  if (is_op("|")) stmt->expr = parse_filters(nullptr);
  stmt->body = parse_body_to("endset");
  return stmt;
}

void Parser::parse_parameters(Macro& macro) {
  expect_op("(");
  while (!failed() && !is_op(")")) {
    if (!macro.parameters.empty()) expect_op(",");
    std::string name = take_identifier("a parameter");
    ExprPtr fallback;
    if (take_op("=")) {
      fallback = parse_expression();
    } else if (!macro.parameters.empty() && macro.parameters.back().second) {
      fail(ErrorCode::invalid_argument, peek().position,
           "a parameter without a default follows one that has one");
    }
    macro.parameters.emplace_back(std::move(name), std::move(fallback));
  }
  expect_op(")");
}

std::unique_ptr<Stmt> Parser::parse_macro() {
  auto stmt = make_stmt(StmtKind::macro);
  next();
  auto macro = std::make_shared<Macro>();
  macro->position = peek().position;
  macro->name = take_identifier("the macro's name");
  parse_parameters(*macro);
  macro->body = parse_body_to("endmacro");
  if (peek().kind == TokenKind::name) next();  // its name may be repeated
  stmt->macro = std::move(macro);
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_call_block() {
  auto stmt = make_stmt(StmtKind::call_block);
  next();
  auto macro = std::make_shared<Macro>();
  macro->name = "caller";
  macro->position = peek().position;
  if (is_op("(")) parse_parameters(*macro);
  stmt->expr = parse_expression();
  if (!failed() && stmt->expr->kind != ExprKind::call) fail_here("a call");
  macro->body = parse_body_to("endcall");
  stmt->macro = std::move(macro);
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_filter_block() {
  auto stmt = make_stmt(StmtKind::filter_block);
  next();
  stmt->expr = parse_filters(parse_filter(nullptr));
  stmt->body = parse_body_to("endfilter");
  return stmt;
}

std::unique_ptr<Stmt> Parser::parse_with() {
  auto stmt = make_stmt(StmtKind::scoped);
  next();
  while (!failed() && peek().kind != TokenKind::block_end) {
    if (!stmt->bindings.empty()) expect_op(",");
    ExprPtr name = make_expr(ExprKind::name);
    name->text = take_identifier("a name");
    expect_op("=");
    ExprPtr value = parse_expression();
    stmt->bindings.emplace_back(std::move(name), std::move(value));
  }
  stmt->body = parse_body_to("endwith");
  return stmt;
}

Result<Body> parse_template(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source));
  Parser parser(std::move(tokens));
  Body body = parser.parse();
  if (parser.failed()) return parser.take_error();
  return body;
}

}  // namespace chainpump::models::chat
