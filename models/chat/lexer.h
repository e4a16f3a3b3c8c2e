// A template's source as tokens, with jinja2's rules for white space as chat templates are rendered
// (trim_blocks, lstrip_blocks, one trailing newline dropped). Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chainpump::models::chat {

/// Counted from 1, in bytes.
struct Position {
  int line = 1;
  int column = 1;
};

enum class TokenKind : uint8_t {
  data,            // text between tags
  variable_begin,  // {{
  variable_end,
  block_begin,  // {%
  block_end,
  name,
  string,   // text: the value, escapes resolved
  integer,  // text: digits
  real,
  op,  // text: the operator
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;
  Position position;
};

/// Always ends with a token of kind `end`. invalid_argument with line and column.
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace chainpump::models::chat
