// The release and the commit this program was built from; stands in every report. Any thread.
#pragma once

#include <string_view>

namespace chainpump {

std::string_view release();  // "0.1.0"
std::string_view commit();  // short hash, "-dirty" appended when the tree was changed; or "unknown"

}  // namespace chainpump
