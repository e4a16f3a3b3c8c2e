#include "gateway/prompt_encoder.h"

#include "models/prompt/prompt.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::gateway {
namespace {

Result<models::ChatTemplate> read_template(const models::GgufFile& model) {
  ASSIGN_OR_RETURN(const std::string source, models::chat_template_source(model));
  return models::ChatTemplate::parse(source);
}

Error not_utf8(std::string_view what, size_t at) {
  return make_error(ErrorCode::invalid_argument, "{} is not valid UTF-8 at byte {}", what, at);
}

}  // namespace

Result<PromptEncoder> PromptEncoder::create(const models::GgufFile& model) {
  ASSIGN_OR_RETURN(std::unique_ptr<models::Tokenizer> tokenizer, models::load_tokenizer(model));
  return PromptEncoder(std::move(tokenizer), read_template(model));
}

bool PromptEncoder::has_chat_template() const {
  return template_.ok() || template_.error().code != ErrorCode::not_found;
}

Result<TokenIds> PromptEncoder::encode(const Prompt& prompt) const {
  if (const auto* raw = std::get_if<RawText>(&prompt)) return encode_text(raw->text);
  if (const auto* chat = std::get_if<Chat>(&prompt)) return encode_chat(chat->messages);
  return check_ids(std::get<TokenIds>(prompt));
}

Result<TokenIds> PromptEncoder::encode_text(const std::string& text) const {
  if (const size_t at = models::find_invalid_utf8(text); at != std::string::npos)
    return not_utf8("the prompt", at);
  ASSIGN_OR_RETURN(TokenIds ids, tokenizer_->encode(text, models::ControlTokens::as_text));
  if (tokenizer_->adds_bos() && tokenizer_->bos()) ids.insert(ids.begin(), *tokenizer_->bos());
  if (ids.empty()) return make_error(ErrorCode::invalid_argument, "the prompt is empty");
  return ids;
}

Result<TokenIds> PromptEncoder::encode_chat(
    const std::vector<models::ChatMessage>& messages) const {
  if (messages.empty()) return make_error(ErrorCode::invalid_argument, "the chat has no messages");
  if (messages.size() > kMaxMessages)
    return make_error(ErrorCode::invalid_argument, "the chat has {} messages; the limit is {}",
                      messages.size(), kMaxMessages);
  for (size_t i = 0; i < messages.size(); ++i)
    for (const auto& [part, text] :
         {std::pair("role", &messages[i].role), std::pair("content", &messages[i].content),
          std::pair("extra JSON", &messages[i].extra_json)})
      if (const size_t at = models::find_invalid_utf8(*text); at != std::string::npos)
        return not_utf8(fmt::format("the {} of message {}", part, i), at);
  if (!template_.ok()) return template_.error();
  models::ChatInput input;
  input.messages = messages;
  const auto spelling = [&](std::optional<TokenId> token) {
    return token ? std::string(tokenizer_->token_bytes(*token, true)) : std::string();
  };
  input.bos_token = spelling(tokenizer_->bos());
  input.eos_token = spelling(tokenizer_->eos());
  ASSIGN_OR_RETURN(const std::vector<models::PromptPiece> pieces, template_->render(input));
  ASSIGN_OR_RETURN(TokenIds ids, models::encode_prompt(*tokenizer_, pieces));
  if (ids.empty()) return make_error(ErrorCode::invalid_argument, "the chat renders to nothing");
  return ids;
}

Result<TokenIds> PromptEncoder::check_ids(const TokenIds& ids) const {
  if (ids.empty()) return make_error(ErrorCode::invalid_argument, "the prompt has no tokens");
  for (const TokenId id : ids)
    if (id < 0 || id >= tokenizer_->vocabulary_size())
      return make_error(ErrorCode::invalid_argument,
                        "prompt token {} is outside the vocabulary of {} tokens", id,
                        tokenizer_->vocabulary_size());
  return ids;
}

}  // namespace chainpump::gateway
