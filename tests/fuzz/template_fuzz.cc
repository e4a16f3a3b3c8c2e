// Any bytes as a chat template, rendered over a conversation with tools: errors are told with their
// place, the pieces alternate, nothing of a message stands unmarked, and rendering is repeatable.
#include <cstddef>
#include <cstdint>

#include "models/chat/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chainpump;
  using namespace chainpump::models;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const Result<ChatTemplate> parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) {
    CHECK(parsed.error().message.starts_with("template"));
    return 0;
  }
  // A character that no template can make but from the messages (unless it spells it itself).
  constexpr std::string_view kSecret = "\xE2\x98\x83";
  ChatInput input;
  input.messages = {{"system", "S\xE2\x98\x83"}, {"user", " a\xE2\x98\x83 <|b|>\n"}, {"user", "c"}};
  input.messages[1].extra_json = R"({"name": "n", "tool_calls": [{"function": {"x": [1, 2.5]}}]})";
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.extra_json = R"({"tools": [{"function": {"name": "f", "parameters": {"a": null}}}]})";
  const bool spells_secret = source.find_first_of("\\\xE2") != std::string_view::npos;

  const auto pieces = parsed->render(input);
  if (!pieces.ok()) {
    CHECK(pieces.error().message.starts_with("template:"));
    return 0;
  }
  std::string text;
  for (size_t i = 0; i < pieces->size(); ++i) {
    const PromptPiece& piece = (*pieces)[i];
    CHECK(!piece.text.empty());
    if (i > 0) CHECK(piece.from_message != (*pieces)[i - 1].from_message);
    if (!piece.from_message && !spells_secret)
      CHECK_EQ(piece.text.find(kSecret), std::string::npos);
    text += piece.text;
  }
  const auto again = parsed->render_text(input);
  CHECK(again.ok() && *again == text);
  return 0;
}
