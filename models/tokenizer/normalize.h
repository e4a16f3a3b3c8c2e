// Unicode normalization form C, which qwen2 asks for. Linear but for sorting runs of combining
// marks (n log n). Tables: utf8proc. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace chainpump::models {

/// text: valid UTF-8. Returns `text` itself where nothing below U+0300 could change, else a view of
/// `buffer`.
std::string_view to_nfc(std::string_view text, std::string& buffer);

}  // namespace chainpump::models
