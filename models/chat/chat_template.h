// Chat templates: our own bounded subset of Jinja (no file, no network; steps, depth and output
// limited), equal to jinja2 on the templates of the common model families. Immutable; any thread.
//
// Covered: if, for (else, filter, loop.*, break, continue), set (also of namespaces, also as a
// block), macro, call, filter, with and generation blocks, raw, comments, white space control;
// literals, slices, arithmetic, comparisons, conditionals, filters, tests, and the methods of str,
// dict and list that do not change a value. Globals: range, namespace, dict, raise_exception,
// strftime_now. Not covered, and named by the error: include, import, extends, block, recursive
// for, do, * and ** arguments, integers beyond 64 bits, format specifications. Generators (of map,
// select and their kin) are as jinja2's, but computed at once, and a second use is refused.
// Every string knows which of its bytes came out of a message, through all operations.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace chainpump::models {

struct ChatMessage {
  std::string role;
  std::string content;
  std::string extra_json = "{}";  // more fields (name, tool_calls, ...), a JSON object
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  std::string extra_json = "{}";  // more top-level variables (tools, ...), a JSON object
  int64_t now_unix_s = 0;         // what strftime_now shows, in UTC
};

/// A piece of the rendered prompt. What came from a message is marked, so that the tokenizer never
/// turns what a user wrote into control tokens: contents, extra_json, and roles that are not plain
/// words.
struct PromptPiece {
  std::string text;
  bool from_message = false;
  bool operator==(const PromptPiece&) const = default;
};

class ChatTemplate {
 public:
  /// invalid_argument with line and column; unimplemented naming the construct.
  static Result<ChatTemplate> parse(std::string_view source);

  /// Pieces in order, none empty, neighbours of different origin. invalid_argument with line and
  /// column if the template refuses (raise_exception, with its message), misuses a value, or
  /// exceeds a limit (each rendering ends within about a second); unimplemented naming what is not
  /// covered.
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
