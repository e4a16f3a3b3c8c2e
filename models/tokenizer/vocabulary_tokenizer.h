// What both kinds of tokenizer share: everything but how a stretch of plain text becomes tokens.
// Immutable; any thread. Private to this folder.
#pragma once

#include "models/tokenizer/vocabulary.h"

namespace chainpump::models {

class VocabularyTokenizer : public Tokenizer {
 public:
  Result<std::vector<TokenId>> encode(std::string_view text, ControlTokens control) const final;
  std::string_view token_bytes(TokenId token, bool show_control) const final;
  int32_t vocabulary_size() const final { return vocabulary_.size(); }
  std::optional<TokenId> bos() const final { return vocabulary_.bos(); }
  std::optional<TokenId> eos() const final { return vocabulary_.eos(); }
  bool adds_bos() const final { return adds_bos_; }
  const std::vector<TokenId>& end_tokens() const final { return vocabulary_.end_tokens(); }
  bool is_control(TokenId token) const final {
    return vocabulary_.contains(token) && vocabulary_.is_control(token);
  }
  std::optional<TokenId> find(std::string_view piece) const final {
    return vocabulary_.find(piece);
  }

 protected:
  VocabularyTokenizer(Vocabulary vocabulary, bool adds_bos)
      : vocabulary_(std::move(vocabulary)), adds_bos_(adds_bos) {}

  /// Appends the tokens of `text`: valid UTF-8, not empty, between two control tokens.
  virtual void encode_text(std::string_view text, std::vector<TokenId>& out) const = 0;

  Vocabulary vocabulary_;

 private:
  bool adds_bos_;
};

/// Cuts the pieces of `trie` out of `text`: on_text(part) for each stretch between them that is not
/// empty, on_token(id) for each of them, in order.
template <typename OnText, typename OnToken>
void cut_pieces(const PieceTrie& trie, std::string_view text, const OnText& on_text,
                const OnToken& on_token) {
  size_t done = 0;
  while (const auto match = trie.search(text, done)) {
    if (match->begin > done) on_text(text.substr(done, match->begin - done));
    on_token(match->token);
    done = match->end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

/// The two kinds. Errors as load_tokenizer().
Result<std::unique_ptr<Tokenizer>> load_byte_pair_tokenizer(const GgufFile& file);
Result<std::unique_ptr<Tokenizer>> load_sentence_piece_tokenizer(const GgufFile& file);

}  // namespace chainpump::models
