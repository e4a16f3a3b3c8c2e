// Prompts as clients give them -> token ids, and the checks that come before: valid UTF-8, ids
// inside the vocabulary, nothing empty. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "gateway/types.h"
#include "models/gguf/gguf.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::gateway {

class PromptEncoder {
 public:
  /// The file's tokenizer and, if it has one, its chat template. Errors as models::load_tokenizer;
  /// a template that cannot be used is an error of the prompts that need it.
  static Result<PromptEncoder> create(const models::GgufFile& model);
  PromptEncoder(std::unique_ptr<models::Tokenizer> tokenizer,
                Result<models::ChatTemplate> chat_template)
      : tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)) {}

  const models::Tokenizer& tokenizer() const { return *tokenizer_; }
  /// False only if the model has none.
  bool has_chat_template() const;

  /// At least one id. invalid_argument naming what is wrong and where; for a chat also not_found if
  /// the model has no template, and the template's own errors. What a client wrote never becomes a
  /// control token.
  Result<TokenIds> encode(const Prompt& prompt) const;

 private:
  Result<TokenIds> encode_text(const std::string& text) const;
  Result<TokenIds> encode_chat(const std::vector<models::ChatMessage>& messages) const;
  Result<TokenIds> check_ids(const TokenIds& ids) const;

  std::unique_ptr<models::Tokenizer> tokenizer_;
  Result<models::ChatTemplate> template_;
};

}  // namespace chainpump::gateway
