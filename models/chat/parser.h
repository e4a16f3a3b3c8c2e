// Tokens -> tree. Recursive descent with bounded nesting. Pure; any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "models/chat/ast.h"

namespace chainpump::models::chat {

/// invalid_argument with line and column; unimplemented naming the construct.
Result<Body> parse_template(std::string_view source);

}  // namespace chainpump::models::chat
