// Text to token ids and back, from the vocabulary in a GGUF file: byte-level BPE (pre-tokenizers
// smollm, gpt-2, llama-bpe, qwen2) and SentencePiece (llama). Immutable after load; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "models/gguf/gguf.h"

namespace chainpump::models {

/// Control tokens in plain text are text unless the caller says that he wrote them.
enum class ControlTokens : uint8_t { as_text, parse };

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of `text` (valid UTF-8, else invalid_argument with the offset). No BOS or EOS is added.
  /// O(n log n) at worst.
  virtual Result<std::vector<TokenId>> encode(std::string_view text,
                                              ControlTokens control) const = 0;

  /// The bytes a token stands for; control tokens give none unless `show_control`. Bytes may end
  /// within a UTF-8 sequence: use StreamDecoder for text that is shown.
  virtual std::string_view token_bytes(TokenId token, bool show_control) const = 0;

  virtual int32_t vocabulary_size() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  virtual bool adds_bos() const = 0;  // the model wants BOS before a raw prompt
  /// All tokens that end a turn (EOS, EOT, <|im_end|> ...), sorted.
  virtual const std::vector<TokenId>& end_tokens() const = 0;
  virtual bool is_control(TokenId token) const = 0;
  /// The token with exactly this spelling, control tokens included.
  virtual std::optional<TokenId> find(std::string_view piece) const = 0;
};

/// bad_file naming the key, or unimplemented naming the tokenizer model or pre-tokenizer.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const GgufFile& file);

/// Turns tokens into text for people: never emits a broken UTF-8 sequence; what can no longer
/// become valid is replaced by U+FFFD, as the oracle does.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// The text that has become certain with this token (may be empty).
  std::string push(TokenId token);
  /// What was still held back.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace chainpump::models
