#include "models/tokenizer/tokenizer.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct SequenceScan {
  size_t bytes = 0;       // of the longest prefix that begins some valid sequence, at least 1
  bool complete = false;  // it is a whole valid sequence
  bool starved = false;   // it could still become one with more bytes
};

// The sequence at the front of `text` (not empty), by table 3-7 of the Unicode Standard. What is
// not valid ends where the standard's "maximal subpart" ends, so that it counts as one U+FFFD.
SequenceScan scan(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    unsigned char low = 0x80;
    unsigned char high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;   // no overlong form
      if (lead == 0xED) high = 0x9F;  // no surrogate
      if (lead == 0xF0) low = 0x90;   // no overlong form
      if (lead == 0xF4) high = 0x8F;  // nothing past U+10FFFF
    }
    if (at(i) < low || at(i) > high) return {i, false, false};
  }
  return {length, true, false};
}

// Moves what is certain from `pending` to the result; at the `end`, everything is.
std::string drain(std::string& pending, bool end) {
  std::string out;
  std::string_view rest = pending;
  while (!rest.empty()) {
    const SequenceScan front = scan(rest);
    if (front.starved && !end) break;
    out += front.complete ? rest.substr(0, front.bytes) : kReplacement;
    rest.remove_prefix(front.bytes);
  }
  pending.erase(0, pending.size() - rest.size());
  return out;
}

}  // namespace

std::string StreamDecoder::push(TokenId token) {
  pending_ += tokenizer_.token_bytes(token, false);
  return drain(pending_, false);
}

std::string StreamDecoder::finish() { return drain(pending_, true); }

}  // namespace chainpump::models
