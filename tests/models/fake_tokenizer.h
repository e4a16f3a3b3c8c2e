// A vocabulary that is a list of pieces; encoding is not needed by the tests that use it.
#pragma once

#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace chainpump::models {

class FakeTokenizer final : public Tokenizer {
 public:
  FakeTokenizer(std::vector<std::string> pieces, std::vector<TokenId> end_tokens)
      : pieces_(std::move(pieces)), end_tokens_(std::move(end_tokens)) {}

  Result<std::vector<TokenId>> encode(std::string_view, ControlTokens) const override {
    return make_error(ErrorCode::unimplemented, "the fake does not encode");
  }
  std::string_view token_bytes(TokenId token, bool show_control) const override {
    if (is_control(token) && !show_control) return {};
    return pieces_[static_cast<size_t>(token)];
  }
  int32_t vocabulary_size() const override { return static_cast<int32_t>(pieces_.size()); }
  std::optional<TokenId> bos() const override { return std::nullopt; }
  std::optional<TokenId> eos() const override { return std::nullopt; }
  bool adds_bos() const override { return false; }
  const std::vector<TokenId>& end_tokens() const override { return end_tokens_; }
  bool is_control(TokenId token) const override {
    return pieces_[static_cast<size_t>(token)].starts_with("<|");
  }
  std::optional<TokenId> find(std::string_view) const override { return std::nullopt; }

 private:
  std::vector<std::string> pieces_;
  std::vector<TokenId> end_tokens_;
};

}  // namespace chainpump::models
