#include "models/tokenizer/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "models/tokenizer/utf8.h"

namespace chainpump::models {
namespace {

// GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes in order
// for U+0100 and up (openai/gpt-2, encoder.py, bytes_to_unicode). From code point to byte, or -1.
constexpr std::array<int16_t, 512> kByteOfCodePoint = [] {
  std::array<int16_t, 512> table{};
  for (int16_t& entry : table) entry = -1;
  size_t other = 256;
  for (int16_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                        (byte >= 0xAE && byte <= 0xFF);
    table[itself ? static_cast<size_t>(byte) : other++] = byte;
  }
  return table;
}();

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = bytes.size() * 0x9E3779B97F4A7C15;
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word = 0;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * 0xD6E8FEB86659FD93;
    hash ^= hash >> 32;
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < left; ++i) tail |= uint64_t{static_cast<unsigned char>(at[i])} << (8 * i);
  hash = (hash ^ tail) * 0xD6E8FEB86659FD93;
  return hash ^ hash >> 32;
}

// "<0x41>" -> 0x41.
std::optional<unsigned char> byte_token_value(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  unsigned value = 0;
  for (const char c : text.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'A' && c <= 'F')) return std::nullopt;
    value = value * 16 + static_cast<unsigned>(digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<unsigned char>(value);
}

// Control tokens by which the usual model families end a turn or a text; a file need not say so.
constexpr std::string_view kEndNames[] = {"<|im_end|>",
                                          "<|eot_id|>",
                                          "<|eom_id|>",
                                          "<|end|>",
                                          "<|endoftext|>",
                                          "<|eot|>",
                                          "<end_of_turn>",
                                          "<EOT>",
                                          "<|end_of_text|>",
                                          "<|END_OF_TURN_TOKEN|>",
                                          "<\xEF\xBD\x9C"
                                          "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

}  // namespace

bool append_byte_level(std::string_view text, std::string& out) {
  const size_t before = out.size();
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    // The alphabet ends at U+0143: one or two bytes each.
    uint32_t value = lead;
    if (lead >= 0x80) {
      if (lead < 0xC2 || lead > 0xC5 || i + 1 >= text.size())
        value = 511;
      else
        value = (lead & 0x1fu) << 6 | (static_cast<unsigned char>(text[i + 1]) & 0x3fu);
    }
    const int16_t byte = kByteOfCodePoint[value];
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(byte);
    i += lead < 0x80 ? 1 : 2;
  }
  return true;
}

void append_replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::string& out) {
  for (;;) {
    const size_t at = text.find(from);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return;
    out += to;
    text.remove_prefix(at + from.size());
  }
}

Result<Vocabulary> Vocabulary::load(const GgufFile& file, Spelling spelling) {
  const std::vector<std::string_view>* tokens = file.find_strings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty())
    return make_error(ErrorCode::bad_file, "{}: key 'tokenizer.ggml.tokens' is missing or empty",
                      file.path().string());
  Vocabulary vocabulary;
  RETURN_IF_ERROR(vocabulary.load_kinds(file, tokens->size()));
  size_t total = 0;
  for (const std::string_view text : *tokens) total += text.size();
  if (total > std::numeric_limits<uint32_t>::max())
    return make_error(ErrorCode::bad_file, "{}: key 'tokenizer.ggml.tokens' holds {} bytes of text",
                      file.path().string(), total);
  vocabulary.arena_.reserve(total);
  vocabulary.ends_.reserve(tokens->size() + 1);
  vocabulary.ends_.push_back(0);
  std::string& arena = vocabulary.arena_;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string_view text = (*tokens)[i];
    const TokenKind kind = vocabulary.kinds_[i];
    if (kind == TokenKind::byte) {
      const auto value = byte_token_value(text);
      if (!value)
        return make_error(ErrorCode::bad_file,
                          "{}: key 'tokenizer.ggml.tokens': byte token {} is not spelled <0xNN>",
                          file.path().string(), i);
      arena += static_cast<char>(*value);
    } else if (kind == TokenKind::control || kind == TokenKind::unknown) {
      arena += text;
    } else if (spelling == Spelling::sentence_piece) {
      append_replaced(text, kSpaceMark, " ", arena);
    } else if (kind == TokenKind::user_defined || !append_byte_level(text, arena)) {
      arena += text;  // as the oracle decodes it
    }
    vocabulary.ends_.push_back(static_cast<uint32_t>(arena.size()));
  }
  vocabulary.index_texts();
  RETURN_IF_ERROR(vocabulary.load_specials(file));
  return vocabulary;
}

Status Vocabulary::load_kinds(const GgufFile& file, size_t count) {
  kinds_.assign(count, TokenKind::normal);
  const std::vector<int64_t>* types = file.find_ints("tokenizer.ggml.token_type");
  if (types == nullptr) return ok_status();
  if (types->size() != count)
    return make_error(ErrorCode::bad_file,
                      "{}: key 'tokenizer.ggml.token_type' has {} entries for {} tokens",
                      file.path().string(), types->size(), count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t type = (*types)[i];
    if (type < 1 || type > 6)
      return make_error(ErrorCode::bad_file,
                        "{}: key 'tokenizer.ggml.token_type': token {} has the unknown type {}",
                        file.path().string(), i, type);
    kinds_[i] = static_cast<TokenKind>(type);
  }
  return ok_status();
}

void Vocabulary::index_texts() {
  slots_.resize(std::bit_ceil(kinds_.size() * 2));
  const size_t mask = slots_.size() - 1;
  for (TokenId id = 0; id < size(); ++id) {
    const std::string_view text = bytes(id);
    if (is_control(id)) {
      controls_.add(text, id);
      continue;
    }
    if (kind(id) == TokenKind::user_defined) user_defined_.add(text, id);
    if ((kind(id) != TokenKind::normal && kind(id) != TokenKind::user_defined) || text.empty())
      continue;
    longest_bytes_ = std::max(longest_bytes_, text.size());
    if (find_text(text) != -1) continue;  // the first of equals
    const uint64_t hash = hash_bytes(text);
    size_t at = hash & mask;
    while (slots_[at].id != -1) at = (at + 1) & mask;
    slots_[at] = {static_cast<uint32_t>(hash >> 32), id};
  }
}

TokenId Vocabulary::find_text(std::string_view text) const {
  if (text.size() > longest_bytes_) return -1;
  const uint64_t hash = hash_bytes(text);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask; slots_[at].id != -1; at = (at + 1) & mask)
    if (slots_[at].tag == tag && bytes(slots_[at].id) == text) return slots_[at].id;
  return -1;
}

void Vocabulary::prefetch_text(std::string_view text) const {
  __builtin_prefetch(&slots_[hash_bytes(text) & (slots_.size() - 1)]);
}

std::optional<TokenId> Vocabulary::find(std::string_view piece) const {
  if (const auto control = controls_.find(piece)) return control;
  const TokenId text = find_text(piece);
  return text == -1 ? std::nullopt : std::optional(text);
}

Status Vocabulary::load_specials(const GgufFile& file) {
  const auto read = [&](std::string_view key, std::optional<TokenId>& token) -> Status {
    if (!file.metadata().contains(key)) return ok_status();
    const std::optional<int64_t> id = file.find_int(key);
    if (!id || *id < 0 || *id >= size())
      return make_error(ErrorCode::bad_file, "{}: key '{}' names no token of the {}",
                        file.path().string(), key, size());
    token = static_cast<TokenId>(*id);
    return ok_status();
  };
  std::optional<TokenId> eot;
  std::optional<TokenId> eom;
  RETURN_IF_ERROR(read("tokenizer.ggml.bos_token_id", bos_));
  RETURN_IF_ERROR(read("tokenizer.ggml.eos_token_id", eos_));
  RETURN_IF_ERROR(read("tokenizer.ggml.eot_token_id", eot));
  RETURN_IF_ERROR(read("tokenizer.ggml.eom_token_id", eom));
  for (const auto& token : {eos_, eot, eom})
    if (token) end_tokens_.push_back(*token);
  for (const std::string_view name : kEndNames) {
    const auto control = controls_.find(name);
    const auto added = user_defined_.find(name);
    if (control) end_tokens_.push_back(*control);
    if (added) end_tokens_.push_back(*added);
  }
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
  return ok_status();
}

}  // namespace chainpump::models
