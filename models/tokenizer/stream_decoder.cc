#include "models/tokenizer/tokenizer.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Moves what is certain from `pending` to the result; at the `end`, everything is.
std::string drain(std::string& pending, bool end) {
  std::string out;
  std::string_view rest = pending;
  while (!rest.empty()) {
    const Utf8Scan front = scan_utf8(rest);
    if (front.starved && !end) break;
    out += front.complete ? rest.substr(0, front.bytes) : kReplacement;
    rest.remove_prefix(front.bytes);
  }
  pending.erase(0, pending.size() - rest.size());
  return out;
}

}  // namespace

std::string StreamDecoder::push(TokenId token) {
  const std::string_view bytes = tokenizer_.token_bytes(token, false);
  if (pending_.empty() && find_invalid_utf8(bytes) == std::string_view::npos)
    return std::string(bytes);
  pending_ += bytes;
  return drain(pending_, false);
}

std::string StreamDecoder::finish() { return drain(pending_, true); }

}  // namespace chainpump::models
