// What the gateway answers, in OpenAI's words: the body of a completion, a chat completion, or an
// error. Pure; any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gateway/openai/request.h"
#include "gateway/types.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::gateway::openai {

using OrderedJson = nlohmann::ordered_json;

/// One request's results as they come, put together.
struct Answer {
  struct Choice {
    std::string text;
    TokenIds tokens;
    std::vector<TokenLogprobs> logprobs;  // one per token if they were asked for
    graph::FinishReason finish = graph::FinishReason::none;
  };
  RequestId request;  // the gateway's
  std::vector<Choice> choices;
  int32_t num_prompt_tokens = 0;

  /// Takes what an update brings, but for its end.
  void take(const Update& update);
  int64_t num_tokens() const;  // of all choices
};

struct AnswerHead {
  std::string id;
  int64_t created_unix_s = 0;
  std::string model;
  std::string system_fingerprint;
};

/// `tokenizer`: spells the tokens of log-probabilities; without one, those are null.
OrderedJson answer_body(Endpoint endpoint, const AnswerHead& head, const Answer& answer,
                        const models::Tokenizer* tokenizer);

/// The HTTP status that says what the code says.
int http_status(ErrorCode code);

/// `param`: the field to blame, or empty.
OrderedJson error_body(const Error& error, const std::string& param);

}  // namespace chainpump::gateway::openai
