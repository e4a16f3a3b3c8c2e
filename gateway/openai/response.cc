#include "gateway/openai/response.h"

#include <algorithm>

#include "models/tokenizer/utf8.h"

namespace chainpump::gateway::openai {
namespace {

/// JSON has no infinity; OpenAI writes this for a token that cannot be.
float shown_logprob(float logprob) { return std::max(logprob, -9999.0f); }

/// A token's bytes as text: what is no UTF-8 by itself is replaced.
std::string spelling(const models::Tokenizer& tokenizer, TokenId token) {
  const std::string_view bytes = tokenizer.token_bytes(token, true);
  std::string text;
  for (size_t at = 0; at < bytes.size();) {
    const models::Utf8Scan scan = models::scan_utf8(bytes.substr(at));
    text += scan.complete ? bytes.substr(at, scan.bytes) : "\xef\xbf\xbd";
    at += scan.bytes;
  }
  return text;
}

OrderedJson spelled(const models::Tokenizer& tokenizer, TokenId token, float logprob) {
  OrderedJson bytes = OrderedJson::array();
  for (const char byte : tokenizer.token_bytes(token, true))
    bytes.push_back(static_cast<uint8_t>(byte));
  return {{"token", spelling(tokenizer, token)},
          {"logprob", shown_logprob(logprob)},
          {"bytes", std::move(bytes)}};
}

OrderedJson chat_logprobs(const Answer::Choice& choice, const models::Tokenizer& tokenizer) {
  OrderedJson content = OrderedJson::array();
  for (size_t i = 0; i < choice.logprobs.size(); ++i) {
    OrderedJson token = spelled(tokenizer, choice.tokens[i], choice.logprobs[i].logprob);
    token["top_logprobs"] = OrderedJson::array();
    for (const auto& [other, logprob] : choice.logprobs[i].top)
      token["top_logprobs"].push_back(spelled(tokenizer, other, logprob));
    content.push_back(std::move(token));
  }
  return {{"content", std::move(content)}};
}

OrderedJson completion_logprobs(const Answer::Choice& choice, const models::Tokenizer& tokenizer) {
  OrderedJson tokens = OrderedJson::array();
  OrderedJson logprobs = OrderedJson::array();
  OrderedJson top = OrderedJson::array();
  OrderedJson offsets = OrderedJson::array();
  int64_t offset = 0;  // in characters, of what the tokens spell one after the other
  for (size_t i = 0; i < choice.logprobs.size(); ++i) {
    std::string text = spelling(tokenizer, choice.tokens[i]);
    offsets.push_back(offset);
    offset += std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
    tokens.push_back(std::move(text));
    logprobs.push_back(shown_logprob(choice.logprobs[i].logprob));
    OrderedJson likeliest = OrderedJson::object();
    for (const auto& [other, logprob] : choice.logprobs[i].top)
      likeliest[spelling(tokenizer, other)] = shown_logprob(logprob);
    top.push_back(std::move(likeliest));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(top)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson choice_json(Endpoint endpoint, size_t index, const Answer::Choice& choice,
                        const models::Tokenizer* tokenizer) {
  const bool chat = endpoint == Endpoint::chat_completions;
  OrderedJson json = {{"index", index}};
  if (chat)
    json["message"] = {{"role", "assistant"}, {"content", choice.text}};
  else
    json["text"] = choice.text;
  json["logprobs"] = nullptr;
  if (tokenizer != nullptr && !choice.logprobs.empty())
    json["logprobs"] =
        chat ? chat_logprobs(choice, *tokenizer) : completion_logprobs(choice, *tokenizer);
  json["finish_reason"] = graph::to_string(choice.finish);
  return json;
}

}  // namespace

void Answer::take(const Update& update) {
  for (const Delta& delta : update.deltas) {
    request = delta.request;
    const auto index = static_cast<size_t>(delta.choice);
    if (choices.size() <= index) choices.resize(index + 1);
    Choice& choice = choices[index];
    choice.text += delta.text;
    choice.tokens.insert(choice.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    choice.logprobs.insert(choice.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    choice.finish = delta.finish;
  }
}

int64_t Answer::num_tokens() const {
  int64_t count = 0;
  for (const Choice& choice : choices) count += static_cast<int64_t>(choice.tokens.size());
  return count;
}

OrderedJson answer_body(Endpoint endpoint, const AnswerHead& head, const Answer& answer,
                        const models::Tokenizer* tokenizer) {
  const bool chat = endpoint == Endpoint::chat_completions;
  OrderedJson choices = OrderedJson::array();
  for (size_t i = 0; i < answer.choices.size(); ++i)
    choices.push_back(choice_json(endpoint, i, answer.choices[i], tokenizer));
  return {{"id", head.id},
          {"object", chat ? "chat.completion" : "text_completion"},
          {"created", head.created_unix_s},
          {"model", head.model},
          {"system_fingerprint", head.system_fingerprint},
          {"choices", std::move(choices)},
          {"usage",
           {{"prompt_tokens", answer.num_prompt_tokens},
            {"completion_tokens", answer.num_tokens()},
            {"total_tokens", answer.num_prompt_tokens + answer.num_tokens()}}}};
}

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::unimplemented:
      return 400;
    case ErrorCode::not_found:
      return 404;
    case ErrorCode::overloaded:
      return 429;
    case ErrorCode::cancelled:
      return 499;
    case ErrorCode::bad_file:
    case ErrorCode::internal:
      return 500;
    case ErrorCode::disconnected:
    case ErrorCode::no_room:
      return 503;
    case ErrorCode::deadline_exceeded:
      return 504;
  }
  return 500;
}

OrderedJson error_body(const Error& error, const std::string& param) {
  const char* type = http_status(error.code) < 429 ? "invalid_request_error" : "server_error";
  OrderedJson json = {{"message", error.message}, {"type", type}};
  json["param"] = param.empty() ? OrderedJson() : OrderedJson(param);
  json["code"] = to_string(error.code);
  return {{"error", std::move(json)}};
}

}  // namespace chainpump::gateway::openai
