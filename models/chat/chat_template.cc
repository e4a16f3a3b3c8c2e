#include "models/chat/chat_template.h"

#include <algorithm>

#include "models/chat/interpreter.h"
#include "models/chat/json_value.h"
#include "models/chat/parser.h"

namespace chainpump::models {
namespace {

using chat::Dict;
using chat::List;
using chat::None;
using chat::Span;
using chat::Text;
using chat::Value;

constexpr size_t kSourceBytesMax = size_t{1} << 20;

/// A role is the template's own word, unless it holds what could spell a control token.
Value role_value(const std::string& role) {
  const bool plain = std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return plain ? Value(role) : Value(Text::marked(role));
}

void set_member(Dict& dict, std::string_view key, Value value) {
  for (auto& [name, old] : dict.entries) {
    if (name.text()->bytes != key) continue;
    old = std::move(value);
    return;
  }
  dict.entries.emplace_back(Value(key), std::move(value));
}

/// {"role": ..., "content": ..., more}. A field of extra_json replaces ours (content as a list).
Result<Value> message_value(const ChatMessage& message) {
  ASSIGN_OR_RETURN(const Dict extra,
                   chat::parse_json_object(message.extra_json, "a message's extra_json"));
  Dict dict;
  set_member(dict, "role", role_value(message.role));
  set_member(dict, "content", Value(Text::marked(message.content)));
  for (const auto& [key, value] : extra.entries) {
    const std::string& name = key.text()->bytes;
    if (name == "role") continue;
    if (name == "content") {
      set_member(dict, name, value);
    } else {
      dict.entries.emplace_back(key, value);
    }
  }
  return Value(std::move(dict));
}

std::vector<PromptPiece> pieces_of(const Text& text) {
  std::vector<PromptPiece> pieces;
  const std::string_view bytes = text.bytes;
  size_t at = 0;
  const auto add = [&](size_t end, bool from_message) {
    if (end > at) pieces.push_back({std::string(bytes.substr(at, end - at)), from_message});
    at = end;
  };
  for (const Span& mark : text.marks) {
    add(mark.begin, false);
    add(mark.end, true);
  }
  add(bytes.size(), false);
  return pieces;
}

Result<Text> render_marked(const chat::Body& body, const ChatInput& input) {
  ASSIGN_OR_RETURN(const Dict extra, chat::parse_json_object(input.extra_json, "extra_json"));
  chat::Interpreter interpreter(input.now_unix_s);
  interpreter.set("tools", Value(None{}));
  interpreter.set("documents", Value(None{}));
  for (const auto& [key, value] : extra.entries) interpreter.set(key.text()->bytes, value);
  List messages;
  for (const ChatMessage& message : input.messages) {
    ASSIGN_OR_RETURN(Value value, message_value(message));
    messages.items.push_back(std::move(value));
  }
  interpreter.set("messages", Value(std::move(messages)));
  interpreter.set("add_generation_prompt", Value(input.add_generation_prompt));
  interpreter.set("bos_token", Value(input.bos_token));
  interpreter.set("eos_token", Value(input.eos_token));
  return interpreter.run(body);
}

}  // namespace

struct ChatTemplate::Program {
  chat::Body body;
};

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kSourceBytesMax)
    return make_error(ErrorCode::invalid_argument, "template: more than 1 MiB");
  ASSIGN_OR_RETURN(chat::Body body, chat::parse_template(source));
  auto program = std::make_unique<Program>();
  program->body = std::move(body);
  return ChatTemplate(std::move(program));
}

Result<std::vector<PromptPiece>> ChatTemplate::render(const ChatInput& input) const {
  ASSIGN_OR_RETURN(const Text text, render_marked(program_->body, input));
  return pieces_of(text);
}

Result<std::string> ChatTemplate::render_text(const ChatInput& input) const {
  ASSIGN_OR_RETURN(Text text, render_marked(program_->body, input));
  return std::move(text.bytes);
}

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

}  // namespace chainpump::models
