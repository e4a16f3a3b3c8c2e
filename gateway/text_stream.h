// One choice's text as it is made: tokens in, text out that can no longer change. Stop strings
// never show, not even in part. Pure; one thread.
#pragma once

#include <string>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace chainpump::gateway {

class TextStream {
 public:
  TextStream(const models::Tokenizer& tokenizer, std::vector<std::string> stops)
      : decoder_(tokenizer), stops_(std::move(stops)) {}

  void push(TokenId token);
  /// No token follows. `text_bytes`: how much of all text remains before a stop string, or -1.
  void finish(int64_t text_bytes);
  /// The text that has become certain since the last call.
  std::string take();

 private:
  models::StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::string pending_;    // not taken yet
  int64_t num_taken_ = 0;  // bytes
  bool finished_ = false;
};

}  // namespace chainpump::gateway
