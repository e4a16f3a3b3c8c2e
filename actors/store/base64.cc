#include "actors/store/base64.h"

#include <cstdint>

namespace chainpump::actors {
namespace {

constexpr std::string_view kLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k)
      three = three << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k)
      text += i + k <= bytes.size() ? kLetters[three >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    size_t num_pads = 0;
    if (i + 4 == text.size())
      while (num_pads < 2 && text[i + 3 - num_pads] == '=') ++num_pads;
    uint32_t three = 0;
    for (size_t k = 0; k < 4; ++k) {
      const size_t value = k < 4 - num_pads ? kLetters.find(text[i + k]) : 0;
      if (value == std::string_view::npos) return std::nullopt;
      three = three << 6 | static_cast<uint32_t>(value);
    }
    for (size_t k = 0; k < 3 - num_pads; ++k) bytes += static_cast<char>(three >> (16 - 8 * k));
    if (num_pads > 0 && (three & ((1u << (8 * num_pads)) - 1)) != 0) return std::nullopt;
  }
  return bytes;
}

}  // namespace chainpump::actors
