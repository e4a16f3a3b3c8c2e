#include "cli/prompt_source.h"

#include <charconv>
#include <cstdio>
#include <memory>

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

Result<gateway::Prompt> prompt_of(const RunOptions& options, bool has_chat_template) {
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
  if (options.prompt_ids) {
    ASSIGN_OR_RETURN(gateway::TokenIds ids, parse_token_ids(*options.prompt_ids));
    return gateway::Prompt(std::move(ids));
  }
  std::string text;
  if (options.prompt && *options.prompt != "-") {
    text = *options.prompt;
  } else {
    ASSIGN_OR_RETURN(text, read_text(options.prompt ? "-" : *options.prompt_file));
  }
  // Before a template wraps it: a chat needs words too.
  if (text.empty()) return make_error(ErrorCode::invalid_argument, "the prompt is empty");
  if (options.raw || (!has_chat_template && !options.chat && !has_system))
    return gateway::Prompt(gateway::RawText{std::move(text)});
  gateway::Chat chat;
  if (has_system) chat.messages.push_back({.role = "system", .content = options.system});
  chat.messages.push_back({.role = "user", .content = std::move(text)});
  return gateway::Prompt(std::move(chat));
}

}  // namespace chainpump::cli
