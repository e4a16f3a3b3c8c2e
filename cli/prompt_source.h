// Where a prompt comes from, and what becomes of it: text, chat or token ids -> prompt tokens.
// Reads files and standard input; one thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/run.h"
#include "models/chat/chat_template.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::cli {

/// The longest prompt that is read from a file or standard input.
inline constexpr size_t kPromptBytesMax = size_t{64} << 20;

/// A file's or standard input's ("-") whole text. not_found, invalid_argument if too long.
Result<std::string> read_text(const std::string& path);

/// "1,2,3". invalid_argument naming the part that is no token id.
Result<std::vector<TokenId>> parse_token_ids(std::string_view text);

/// Turns messages into prompt tokens with the model's chat template.
class ChatEncoder {
 public:
  /// not_found if the model has no template.
  static Result<ChatEncoder> create(const models::GgufFile& model,
                                    const models::Tokenizer& tokenizer);
  Result<std::vector<TokenId>> encode(const std::vector<models::ChatMessage>& messages) const;

 private:
  ChatEncoder(models::ChatTemplate chat_template, const models::Tokenizer& tokenizer)
      : template_(std::move(chat_template)), tokenizer_(&tokenizer) {}
  models::ChatTemplate template_;
  const models::Tokenizer* tokenizer_;
};

/// The prompt as it is, with BOS if the model wants it.
Result<std::vector<TokenId>> encode_raw(const models::Tokenizer& tokenizer, std::string_view text);

/// The prompt that the options name, whichever way. invalid_argument if they name none or several.
Result<std::vector<TokenId>> prompt_tokens(const RunOptions& options, const Deployment& deployment);

}  // namespace chainpump::cli
