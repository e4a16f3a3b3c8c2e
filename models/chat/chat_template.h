// Chat templates: our own bounded subset of Jinja (no file, no network; steps, depth and output
// limited), equal to jinja2 on the templates of the common model families. Immutable; any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chainpump::models {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  std::string extra_json = "{}";  // more top-level variables (tools, ...), a JSON object
};

/// A piece of the rendered prompt. Message contents are marked, so that the tokenizer never turns
/// what a user wrote into control tokens.
struct PromptPiece {
  std::string text;
  bool from_message = false;
};

class ChatTemplate {
 public:
  /// invalid_argument with line and column; unimplemented naming the construct.
  static Result<ChatTemplate> parse(std::string_view source);

  Result<std::vector<PromptPiece>> render(const ChatInput& input) const;
  Result<std::string> render_text(const ChatInput& input) const;

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace chainpump::models
