// Bytes as text, the way etcd's JSON has them (RFC 4648, with padding). Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chainpump::actors {

std::string to_base64(std::string_view bytes);
/// Nothing: it is not what to_base64() makes of any bytes.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace chainpump::actors
