#include "cli/prompt_source.h"

#include <charconv>
#include <cstdio>
#include <memory>

#include "models/prompt/prompt.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::cli {

Result<std::string> read_text(const std::string& path) {
  const bool standard_input = path == "-";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(
      standard_input ? nullptr : std::fopen(path.c_str(), "rb"), &std::fclose);
  std::FILE* file = standard_input ? stdin : opened.get();
  if (file == nullptr)
    return make_error(ErrorCode::not_found, "{}: cannot open the prompt file", path);
  std::string text;
  char buffer[65536];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, file)) {
    text.append(buffer, n);
    if (text.size() > kPromptBytesMax)
      return make_error(ErrorCode::invalid_argument, "{}: a prompt may have {} bytes at most", path,
                        kPromptBytesMax);
  }
  if (std::ferror(file) != 0) return make_error(ErrorCode::not_found, "{}: cannot be read", path);
  return text;
}

Result<std::vector<TokenId>> parse_token_ids(std::string_view text) {
  std::vector<TokenId> ids;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    TokenId id = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), id);
    if (error != std::errc() || end != part.data() + part.size() || id < 0)
      return make_error(ErrorCode::invalid_argument, "--prompt-ids: '{}' is no token id", part);
    ids.push_back(id);
    if (comma == std::string_view::npos) return ids;
    text.remove_prefix(comma + 1);
  }
}

Result<ChatEncoder> ChatEncoder::create(const models::GgufFile& model,
                                        const models::Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const std::string source, models::chat_template_source(model));
  ASSIGN_OR_RETURN(models::ChatTemplate parsed, models::ChatTemplate::parse(source));
  return ChatEncoder(std::move(parsed), tokenizer);
}

Result<std::vector<TokenId>> ChatEncoder::encode(
    const std::vector<models::ChatMessage>& messages) const {
  models::ChatInput input;
  input.messages = messages;
  const auto spelling = [&](std::optional<TokenId> token) {
    return token ? std::string(tokenizer_->token_bytes(*token, true)) : std::string();
  };
  input.bos_token = spelling(tokenizer_->bos());
  input.eos_token = spelling(tokenizer_->eos());
  ASSIGN_OR_RETURN(const std::vector<models::PromptPiece> pieces, template_.render(input));
  return models::encode_prompt(*tokenizer_, pieces);
}

Result<std::vector<TokenId>> encode_raw(const models::Tokenizer& tokenizer, std::string_view text) {
  ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                   tokenizer.encode(text, models::ControlTokens::as_text));
  if (tokenizer.adds_bos() && tokenizer.bos()) ids.insert(ids.begin(), *tokenizer.bos());
  if (ids.empty()) return make_error(ErrorCode::invalid_argument, "the prompt is empty");
  return ids;
}

Result<std::vector<TokenId>> prompt_tokens(const RunOptions& options,
                                           const Deployment& deployment) {
  const int num_sources = static_cast<int>(options.prompt.has_value()) +
                          static_cast<int>(options.prompt_file.has_value()) +
                          static_cast<int>(options.prompt_ids.has_value());
  if (num_sources != 1)
    return make_error(ErrorCode::invalid_argument,
                      "give one of --prompt, --prompt-file and --prompt-ids");
  const auto no_system = [&](const char* why) {
    return make_error(ErrorCode::invalid_argument, "--system needs a chat template: {}", why);
  };
  const bool has_system = !options.system.empty();
  if (has_system && options.raw) return no_system("not with --raw");
  if (has_system && options.prompt_ids) return no_system("not with --prompt-ids");
  if (options.prompt_ids) return parse_token_ids(*options.prompt_ids);
  std::string text;
  if (options.prompt && *options.prompt != "-") {
    text = *options.prompt;
  } else {
    ASSIGN_OR_RETURN(text, read_text(options.prompt ? "-" : *options.prompt_file));
  }
  // Before a template wraps it: offsets are those of what was typed, and a chat needs words too.
  if (text.empty()) return make_error(ErrorCode::invalid_argument, "the prompt is empty");
  if (const size_t at = models::find_invalid_utf8(text); at != std::string::npos)
    return make_error(ErrorCode::invalid_argument, "the prompt is not valid UTF-8 at byte {}", at);
  if (options.raw) return encode_raw(*deployment.tokenizer, text);
  Result<ChatEncoder> encoder = ChatEncoder::create(deployment.model, *deployment.tokenizer);
  if (!encoder.ok()) {
    if (!options.chat && !has_system && encoder.error().code == ErrorCode::not_found)
      return encode_raw(*deployment.tokenizer, text);
    return std::move(encoder).error();
  }
  std::vector<models::ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({.role = "system", .content = options.system});
  messages.push_back({.role = "user", .content = text});
  return encoder->encode(messages);
}

}  // namespace chainpump::cli
