// The vocabulary of a GGUF file, shared by both tokenizers: each token's kind and bytes, the way
// back from bytes to token, and the special tokens. Immutable after load; any thread. Private to
// this folder.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer/piece_trie.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::models {

/// tokenizer.ggml.token_type; the numbers are the format's.
enum class TokenKind : uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

/// How a token's text in the file stands for bytes.
enum class Spelling : uint8_t {
  byte_level,     // GPT-2's alphabet: one printable character per byte
  sentence_piece  // U+2581 for a space; <0x41> for a byte, where the kind says so
};

class Vocabulary {
 public:
  /// bad_file naming the key and the token.
  static Result<Vocabulary> load(const GgufFile& file, Spelling spelling);

  int32_t size() const { return static_cast<int32_t>(kinds_.size()); }
  bool contains(TokenId id) const { return id >= 0 && id < size(); }
  TokenKind kind(TokenId id) const { return kinds_[static_cast<size_t>(id)]; }
  /// What the token stands for; a control or unknown token: its name.
  std::string_view bytes(TokenId id) const {
    const auto i = static_cast<size_t>(id);
    return std::string_view(arena_).substr(ends_[i], ends_[i + 1] - ends_[i]);
  }
  bool is_control(TokenId id) const {
    return kind(id) == TokenKind::control || kind(id) == TokenKind::unknown;
  }

  /// The text token (normal or user-defined) with exactly these bytes, or -1.
  TokenId find_text(std::string_view bytes) const;
  /// Has the memory fetched that find_text() of these bytes will look at first.
  void prefetch_text(std::string_view bytes) const;
  std::optional<TokenId> find(std::string_view piece) const;
  size_t longest_bytes() const { return longest_bytes_; }

  const PieceTrie& controls() const { return controls_; }
  const PieceTrie& user_defined() const { return user_defined_; }
  std::optional<TokenId> bos() const { return bos_; }
  std::optional<TokenId> eos() const { return eos_; }
  const std::vector<TokenId>& end_tokens() const { return end_tokens_; }

 private:
  Status load_kinds(const GgufFile& file, size_t count);
  Status load_specials(const GgufFile& file);
  void index_texts();

  struct Slot {
    uint32_t tag = 0;
    TokenId id = -1;
  };

  std::vector<TokenKind> kinds_;
  std::string arena_;
  std::vector<uint32_t> ends_;  // ends_[i] is where token i begins
  std::vector<Slot> slots_;     // open addressing, a power of two, at most half full
  size_t longest_bytes_ = 0;
  PieceTrie controls_;
  PieceTrie user_defined_;
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  std::vector<TokenId> end_tokens_;
};

/// Appends to `out` the bytes that `text` stands for in GPT-2's alphabet; false, with nothing
/// appended, if a character is not of the alphabet.
bool append_byte_level(std::string_view text, std::string& out);

/// Appends with every `from` replaced by `to`.
void append_replaced(std::string_view text, std::string_view from, std::string_view to,
                     std::string& out);

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

}  // namespace chainpump::models
