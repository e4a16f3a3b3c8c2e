#include "models/prompt/prompt.h"

#include "models/tokenizer/piece_trie.h"

namespace chainpump::models {
namespace {

// Collects text until a control token ends it: only there may the tokenizer be asked, because
// tokens merge across the borders of pieces.
class PromptEncoder {
 public:
  explicit PromptEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    for (TokenId id = 0; id < tokenizer.vocabulary_size(); ++id)
      if (tokenizer.is_control(id)) controls_.add(tokenizer.token_bytes(id, true), id);
  }

  void add_message_text(std::string_view text) { text_ += text; }

  Status add_template_text(std::string_view text) {
    size_t done = 0;
    while (const auto control = controls_.search(text, done)) {
      text_ += text.substr(done, control->begin - done);
      RETURN_IF_ERROR(encode_text());
      ids_.push_back(control->token);
      done = control->end;
    }
    text_ += text.substr(done);
    return ok_status();
  }

  Result<std::vector<TokenId>> finish() {
    RETURN_IF_ERROR(encode_text());
    return std::move(ids_);
  }

 private:
  Status encode_text() {
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                     tokenizer_.encode(text_, ControlTokens::as_text));
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    text_.clear();
    return ok_status();
  }

  const Tokenizer& tokenizer_;
  PieceTrie controls_;
  std::string text_;
  std::vector<TokenId> ids_;
};

}  // namespace

Result<std::vector<TokenId>> encode_prompt(const Tokenizer& tokenizer,
                                           std::span<const PromptPiece> pieces) {
  PromptEncoder encoder(tokenizer);
  // Neighbours of one origin are one text: a control token may lie across their border.
  std::string template_text;
  for (const PromptPiece& piece : pieces) {
    if (!piece.from_message) {
      template_text += piece.text;
      continue;
    }
    if (piece.text.empty()) continue;
    RETURN_IF_ERROR(encoder.add_template_text(template_text));
    template_text.clear();
    encoder.add_message_text(piece.text);
  }
  RETURN_IF_ERROR(encoder.add_template_text(template_text));
  return encoder.finish();
}

Result<std::string> chat_template_source(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.chat_template";
  if (const auto source = file.find_string(kKey)) return std::string(*source);
  if (file.metadata().contains(kKey))
    return make_error(ErrorCode::bad_file, "{}: key '{}' is not text", file.path().string(), kKey);
  return make_error(ErrorCode::not_found, "{}: no chat template (key '{}')", file.path().string(),
                    kKey);
}

}  // namespace chainpump::models
