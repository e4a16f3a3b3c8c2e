// JSON text from outside -> a template's value, every string of it marked as a message's. Pure; any
// thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "models/chat/value.h"

namespace chainpump::models::chat {

/// A JSON object's members, in order. invalid_argument naming `what`.
Result<Dict> parse_json_object(std::string_view json, std::string_view what);

}  // namespace chainpump::models::chat
