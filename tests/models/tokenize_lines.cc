// Our tokenizer for the oracle test: reads JSON lines {"text": ..., "parse": bool} from standard
// input and writes for each {"ids": [...], "text": ...}, the text as a StreamDecoder gives it back.
// Usage: tokenize_lines FILE.gguf
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "models/tokenizer/tokenizer.h"

int main(int argc, char** argv) {
  using namespace chainpump;
  if (argc != 2) {
    std::fputs("usage: tokenize_lines FILE.gguf\n", stderr);
    return 2;
  }
  const Result<models::GgufFile> file = models::GgufFile::open(argv[1]);
  if (!file.ok()) {
    fmt::print(stderr, "{}\n", file.error().message);
    return 3;
  }
  const auto tokenizer = models::load_tokenizer(*file);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.error().message);
    return 3;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto request = nlohmann::json::parse(line);
    const auto control = request.at("parse").get<bool>() ? models::ControlTokens::parse
                                                         : models::ControlTokens::as_text;
    const auto ids = (*tokenizer)->encode(request.at("text").get<std::string>(), control);
    if (!ids.ok()) {
      fmt::print(stderr, "{}\n", ids.error().message);
      return 5;
    }
    models::StreamDecoder decoder(**tokenizer);
    std::string text;
    for (const TokenId id : *ids) text += decoder.push(id);
    text += decoder.finish();
    std::cout << nlohmann::json{{"ids", *ids}, {"text", text}}.dump() << '\n';
  }
  return 0;
}
