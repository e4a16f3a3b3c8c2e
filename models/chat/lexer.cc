#include "models/chat/lexer.h"

#include <algorithm>
#include <array>

#include "models/chat/text.h"

namespace chainpump::models::chat {
namespace {

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view rstrip(std::string_view text) {
  return text.substr(0, strip(text, {}, false, true).end);
}

/// One newline style, and the last newline gone.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<Token>> run() {
    while (!failed_ && at_ < source_.size()) lex_data();
    if (failed_) return Error{ErrorCode::invalid_argument, message_};
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool starts(std::string_view text) const { return rest().starts_with(text); }
  void add(TokenKind kind, std::string_view text) {
    tokens_.push_back({kind, std::string(text), position_of(at_)});
  }
  Position position_of(size_t offset);
  void fail(size_t offset, std::string_view what) {
    if (failed_) return;
    failed_ = true;
    const Position p = position_of(offset);
    message_ = fmt::format("template:{}:{}: {}", p.line, p.column, what);
  }
  void lex_data();
  void add_data(std::string_view data, char sign, bool is_variable);
  void lex_comment();
  bool lex_raw();
  void lex_tag(std::string_view close, TokenKind end_kind);
  void end_tag(std::string_view close, bool trims_newline);
  void skip_space();
  void lex_string();
  void lex_number();
  void lex_operator();

  std::string source_;
  size_t at_ = 0;
  bool at_line_start_ = true;  // whether what was lexed last ended a line
  std::vector<Token> tokens_;
  std::vector<char> brackets_;
  bool failed_ = false;
  std::string message_;
  size_t counted_to_ = 0;
  size_t line_begin_ = 0;
  int line_ = 1;
};

Position Lexer::position_of(size_t offset) {
  for (; counted_to_ < offset; ++counted_to_) {
    if (source_[counted_to_] != '\n') continue;
    ++line_;
    line_begin_ = counted_to_ + 1;
  }
  const int column = offset >= line_begin_ ? static_cast<int>(offset - line_begin_) + 1 : 1;
  return {line_, column};
}

void Lexer::skip_space() {
  while (at_ < source_.size()) {
    const Character c = character_at(source_, at_);
    if (!is_space(c.code_point)) return;
    at_ += c.bytes;
  }
}

/// Text up to a tag: white space before it goes as its sign and lstrip_blocks say.
void Lexer::add_data(std::string_view data, char sign, bool is_variable) {
  if (sign == '-') {
    data = rstrip(data);
  } else if (sign != '+' && !is_variable) {
    const size_t newline = data.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    const bool whole_line = line > 0 || at_line_start_;
    if (whole_line && rstrip(data.substr(line)).empty()) data = data.substr(0, line);
  }
  if (!data.empty()) add(TokenKind::data, data);
}

void Lexer::lex_data() {
  size_t open = at_;
  while (true) {
    open = source_.find('{', open);
    if (open == std::string::npos || open + 1 >= source_.size()) {
      if (!rest().empty()) add(TokenKind::data, rest());
      at_ = source_.size();
      return;
    }
    const char next = source_[open + 1];
    if (next == '{' || next == '%' || next == '#') break;
    ++open;
  }
  const char kind = source_[open + 1];
  char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
  if (sign != '-' && (sign != '+' || kind == '{')) sign = '\0';
  add_data(std::string_view(source_).substr(at_, open - at_), sign, kind == '{');
  at_ = open;
  if (kind == '#') {
    at_ += sign != '\0' ? 3 : 2;
    lex_comment();
    return;
  }
  if (kind == '%' && lex_raw()) return;
  add(kind == '{' ? TokenKind::variable_begin : TokenKind::block_begin, "");
  at_ += sign != '\0' ? 3 : 2;
  if (kind == '{') {
    lex_tag("}}", TokenKind::variable_end);
  } else {
    lex_tag("%}", TokenKind::block_end);
  }
}

/// Past a tag's end and the white space it takes with it.
void Lexer::end_tag(std::string_view close, bool trims_newline) {
  const char sign = source_[at_];
  at_ += close.size() + (sign == '-' || sign == '+' ? 1 : 0);
  const size_t after = at_;
  if (sign == '-') {
    skip_space();
  } else if (sign != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
    ++at_;
  }
  at_line_start_ = at_ > after && source_[at_ - 1] == '\n';
}

void Lexer::lex_comment() {
  const size_t begin = at_;
  const size_t close = source_.find("#}", at_);
  if (close == std::string::npos) return fail(begin, "a comment is never closed");
  at_ = close;
  if (at_ > begin && (source_[at_ - 1] == '-' || source_[at_ - 1] == '+')) --at_;
  end_tag("#}", true);
}

/// {% raw %} ... {% endraw %}: text as it stands.
bool Lexer::lex_raw() {
  const size_t begin = at_;
  const auto tag = [&](std::string_view word) {  // "{% word %}" here: past it, else back
    const size_t back = at_;
    at_ += 2;
    if (starts("-") || starts("+")) ++at_;
    skip_space();
    if (starts(word)) {
      at_ += word.size();
      skip_space();
      if (starts("%}") || starts("-%}") || (word == "endraw" && starts("+%}"))) return true;
    }
    at_ = back;
    return false;
  };
  if (!tag("raw")) return false;
  end_tag("%}", false);
  const size_t text_begin = at_;
  for (size_t open = at_; (open = source_.find("{%", open)) != std::string::npos; open += 2) {
    at_ = open;
    if (!tag("endraw")) continue;
    const size_t after = at_;
    const std::string_view text = std::string_view(source_).substr(text_begin, open - text_begin);
    at_ = text_begin;
    add_data(text, source_[open + 2], false);
    at_ = after;
    end_tag("%}", true);
    return true;
  }
  fail(begin, "raw is never closed by endraw");
  return true;
}

void Lexer::lex_tag(std::string_view close, TokenKind end_kind) {
  const size_t begin = at_;
  brackets_.clear();
  while (!failed_) {
    skip_space();
    if (at_ >= source_.size())
      return fail(begin, end_kind == TokenKind::block_end ? "a tag is never closed by %}"
                                                          : "an expression is never closed by }}");
    const bool may_end = brackets_.empty();
    const bool signed_end = (starts("-") || (starts("+") && end_kind == TokenKind::block_end)) &&
                            rest().substr(1).starts_with(close);
    if (may_end && (signed_end || starts(close))) {
      add(end_kind, "");
      end_tag(close, end_kind == TokenKind::block_end);
      return;
    }
    const char c = source_[at_];
    if (is_name_start(c)) {
      const size_t name = at_;
      while (at_ < source_.size() && (is_name_start(source_[at_]) || is_digit(source_[at_]))) ++at_;
      const size_t after = at_;
      at_ = name;
      add(TokenKind::name, std::string_view(source_).substr(name, after - name));
      at_ = after;
    } else if (is_digit(c)) {
      lex_number();
    } else if (c == '"' || c == '\'') {
      lex_string();
    } else {
      lex_operator();
    }
  }
}

void Lexer::lex_number() {
  const size_t begin = at_;
  std::string digits;
  bool real = false;
  for (; at_ < source_.size(); ++at_) {
    const char c = source_[at_];
    const char next = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
    if (c == '.' && !real && is_digit(next)) {
      real = true;
    } else if ((c == 'e' || c == 'E') && (is_digit(next) || next == '-' || next == '+')) {
      real = true;
      digits += c;
      digits += next;
      ++at_;
      continue;
    } else if (c == '_' && is_digit(next)) {
      continue;
    } else if (!is_digit(c)) {
      break;
    }
    digits += c;
  }
  const size_t after = at_;
  at_ = begin;
  add(real ? TokenKind::real : TokenKind::integer, digits);
  at_ = after;
}

void Lexer::lex_string() {
  const size_t begin = at_;
  const char quote = source_[at_++];
  std::string out;
  const auto read_code_point = [&](size_t digits, unsigned base) {
    uint32_t value = 0;
    for (; digits > 0 && at_ < source_.size(); --digits, ++at_) {
      const std::string_view all = "0123456789abcdef";
      const size_t digit =
          all.find(static_cast<char>(source_[at_] | (source_[at_] > '9' ? 32 : 0)));
      if (digit >= base) break;
      value = value * base + static_cast<uint32_t>(digit);
    }
    if ((base == 16 && digits > 0) || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      return fail(begin, "a string has a broken escape");
    append_utf8(value, out);
  };
  while (at_ < source_.size() && source_[at_] != quote) {
    const char c = source_[at_++];
    if (c != '\\') {
      out += c;
      continue;
    }
    if (at_ >= source_.size()) break;
    const char e = source_[at_++];
    static constexpr std::string_view kFrom = "ntrabfv\\'\"";
    static constexpr std::string_view kTo = "\n\t\r\a\b\f\v\\'\"";
    if (const size_t i = kFrom.find(e); i != std::string_view::npos) {
      out += kTo[i];
    } else if (e == 'x' || e == 'u' || e == 'U') {
      read_code_point(e == 'x' ? 2 : e == 'u' ? 4 : 8, 16);
    } else if (e >= '0' && e <= '7') {
      --at_;
      read_code_point(3, 8);
    } else if (e != '\n') {  // Python keeps what it does not know
      out += '\\';
      out += e;
    }
  }
  if (at_ >= source_.size()) return fail(begin, "a string is never closed");
  const size_t after = at_ + 1;
  at_ = begin;
  add(TokenKind::string, out);
  at_ = after;
}

void Lexer::lex_operator() {
  static constexpr std::array<std::string_view, 26> kOperators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  "<",  ">", "=", ".", ":", "|", ",", ";"};
  for (const std::string_view op : kOperators) {
    if (!starts(op)) continue;
    const char c = op[0];
    if (c == '(' || c == '[' || c == '{')
      brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty() || brackets_.back() != c)
        return fail(at_, fmt::format("unexpected '{}'", c));
      brackets_.pop_back();
    }
    add(TokenKind::op, op);
    at_ += op.size();
    return;
  }
  fail(at_, fmt::format("unexpected character '{}'", rest().substr(0, 1)));
}

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(normalized(source)).run();
}

}  // namespace chainpump::models::chat
