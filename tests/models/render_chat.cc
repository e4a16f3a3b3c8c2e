// Renders chat templates for the oracle test: one JSON object a line on standard input
// ({"template", "messages", "variables", "add_generation_prompt", "bos_token", "eos_token",
// "now"}), one on standard output ({"pieces": [[text, from_message] ...]} or {"error": ..., "code":
// ...}).
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "models/chat/chat_template.h"

namespace {

using chainpump::models::ChatInput;
using chainpump::models::ChatMessage;
using chainpump::models::ChatTemplate;
using nlohmann::ordered_json;

ordered_json error_of(const chainpump::Error& error) {
  return {{"error", error.message}, {"code", std::string(chainpump::to_string(error.code))}};
}

ChatInput input_of(const ordered_json& line) {
  ChatInput input;
  for (const ordered_json& from : line.at("messages")) {
    ChatMessage message;
    message.role = from.at("role");
    ordered_json extra = from;
    extra.erase("role");
    if (from.contains("content") && from.at("content").is_string()) {
      message.content = from.at("content");
      extra.erase("content");
    }
    message.extra_json = extra.dump();
    input.messages.push_back(std::move(message));
  }
  input.extra_json = line.at("variables").dump();
  input.add_generation_prompt = line.at("add_generation_prompt");
  input.bos_token = line.at("bos_token");
  input.eos_token = line.at("eos_token");
  input.now_unix_s = line.at("now");
  return input;
}

ordered_json render(const ordered_json& line) {
  const auto parsed = ChatTemplate::parse(line.at("template").get<std::string>());
  if (!parsed.ok()) return error_of(parsed.error());
  const auto pieces = parsed->render(input_of(line));
  if (!pieces.ok()) return error_of(pieces.error());
  ordered_json out = ordered_json::array();
  for (const auto& piece : *pieces) out.push_back({piece.text, piece.from_message});
  return {{"pieces", out}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line))
    std::cout << render(ordered_json::parse(line)).dump() << "\n";
  return std::cout.good() ? 0 : 1;
}
