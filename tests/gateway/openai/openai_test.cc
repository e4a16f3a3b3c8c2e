// Requests and answers in OpenAI's words: what each field becomes, and that none is ignored.
#include <boost/test/unit_test.hpp>
#include <limits>

#include "gateway/openai/request.h"
#include "gateway/openai/response.h"
#include "tests/models/fake_tokenizer.h"

namespace chainpump::gateway::openai {
namespace {

const std::vector<std::string> kNames = {"demo", "model.gguf", "model"};

std::variant<GenerateRequest, Refusal> read(Endpoint endpoint, const std::string& text) {
  const Result<Json> body = parse_json(text);
  BOOST_TEST_REQUIRE(body.ok());
  return read_body(endpoint, *body, kNames);
}

GenerateRequest accepted(Endpoint endpoint, const std::string& text) {
  const auto found = read(endpoint, text);
  const auto* refusal = std::get_if<Refusal>(&found);
  BOOST_TEST_REQUIRE(refusal == nullptr, (refusal ? refusal->error.message : ""));
  return std::get<GenerateRequest>(found);
}

std::string completion(const std::string& more) { return R"({"prompt": "x", )" + more + "}"; }

std::string chat(const std::string& more) {
  return R"({"messages": [{"role": "user", "content": "x"}], )" + more + "}";
}

struct Refused {
  bool is_chat;
  std::string body;
  std::string param;
  ErrorCode code = ErrorCode::invalid_argument;
};
constexpr auto kUnimplemented = ErrorCode::unimplemented;
const Refused kRefused[] = {
    {true, "{}", "messages"},
    {false, "{}", "prompt"},
    {false, R"({"messages": []})", "messages"},
    {true, R"({"prompt": "x"})", "prompt"},
    {true, R"({"messages": []})", "messages"},
    {true, R"({"messages": "x"})", "messages"},
    {true, R"({"messages": ["x"]})", "messages[0]"},
    {true, R"({"messages": [{"role": "user"}]})", "messages[0]"},
    {true, R"({"messages": [{"content": "x"}]})", "messages[0]"},
    {true, R"({"messages": [{"role": 1, "content": "x"}]})", "messages[0].role"},
    {true, R"({"messages": [{"role": "user", "content": 1}]})", "messages[0].content"},
    {true, R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
     "messages[0].content[0]"},
    {true, R"({"messages": [{"role": "a", "content": "x", "tool_calls": [1]}]})",
     "messages[0].tool_calls", kUnimplemented},
    {true, chat(R"("tools": [{"type": "function"}])"), "tools", kUnimplemented},
    {true, chat(R"("stream": true)"), "stream", kUnimplemented},
    {true, chat(R"("response_format": {"type": "json_object"})"), "response_format",
     kUnimplemented},
    {true, chat(R"("model": "gpt-4o")"), "model", ErrorCode::not_found},
    {true, chat(R"("model": 7)"), "model"},
    {true, chat(R"("max_tokns": 7)"), "max_tokns"},
    {true, chat(R"("top_logprobs": 2)"), "top_logprobs"},
    {true, chat(R"("logprobs": 2)"), "logprobs"},
    {true, chat(R"("max_tokens": 2, "max_completion_tokens": 3)"), "max_tokens"},
    {false, R"({"prompt": []})", "prompt"},
    {false, R"({"prompt": ["a", "b"]})", "prompt", kUnimplemented},
    {false, R"({"prompt": [[1], [2]]})", "prompt", kUnimplemented},
    {false, R"({"prompt": [1, -2]})", "prompt"},
    {false, R"({"prompt": [1, 2.5]})", "prompt"},
    {false, completion(R"("best_of": 3)"), "best_of", kUnimplemented},
    {false, completion(R"("echo": true)"), "echo", kUnimplemented},
    {false, completion(R"("max_completion_tokens": 3)"), "max_completion_tokens"},
    {false, completion(R"("max_tokens": 0)"), "max_tokens"},
    {false, completion(R"("max_tokens": 2147483648)"), "max_tokens"},
    {false, completion(R"("max_tokens": 18446744073709551615)"), "max_tokens"},
    {false, completion(R"("max_tokens": 1.5)"), "max_tokens"},
    {false, completion(R"("n": "2")"), "n"},
    {false, completion(R"("temperature": "hot")"), "temperature"},
    {false, completion(R"("seed": 1.5)"), "seed"},
    {false, completion(R"("stop": [1])"), "stop"},
    {false, completion(R"("stop_token_ids": 1)"), "stop_token_ids"},
    {false, completion(R"("ignore_eos": 1)"), "ignore_eos"},
    {false, completion(R"("logit_bias": [])"), "logit_bias"},
    {false, completion(R"("logit_bias": {"x": 1})"), "logit_bias"},
    {false, completion(R"("logit_bias": {"-1": 1})"), "logit_bias"},
    {false, completion(R"("logit_bias": {"1": "x"})"), "logit_bias"},
    {false, completion(R"("logprobs": true)"), "logprobs"},
    {false, completion(R"("user": 1)"), "user"},
    {false, "[]", ""},
};

}  // namespace

BOOST_AUTO_TEST_CASE(endpoints) {
  BOOST_TEST((endpoint_of("/v1/completions") == Endpoint::completions));
  BOOST_TEST((endpoint_of("/v1/chat/completions") == Endpoint::chat_completions));
  for (const char* path : {"", "/", "/v1/embeddings", "/v1/completions/", "v1/completions"})
    BOOST_TEST(!endpoint_of(path).has_value());
}

BOOST_AUTO_TEST_CASE(defaults_are_openais) {
  const GenerateRequest one = accepted(Endpoint::completions, R"({"prompt": "x"})");
  BOOST_TEST(std::get<RawText>(one.prompt).text == "x");
  BOOST_TEST(one.sampling.temperature == 1.0f);
  BOOST_TEST(one.sampling.max_new_tokens == 16);
  BOOST_TEST(one.sampling.num_top_logprobs == -1);
  BOOST_TEST(one.num_choices == 1);
  BOOST_TEST(!one.seed.has_value());
  const GenerateRequest two = accepted(
      Endpoint::chat_completions,
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "name": "n", "content":
          [{"type": "text", "text": "a"}, {"text": "b", "type": "text"}]}]})");
  const auto& messages = std::get<Chat>(two.prompt).messages;
  BOOST_REQUIRE_EQUAL(messages.size(), 2u);
  BOOST_TEST(messages[0].role == "system");
  BOOST_TEST(messages[0].extra_json == "{}");
  BOOST_TEST(messages[1].content == "ab");
  BOOST_TEST(messages[1].extra_json == R"({"name":"n"})");
  BOOST_TEST(two.sampling.max_new_tokens == std::numeric_limits<int32_t>::max());
}

BOOST_AUTO_TEST_CASE(every_field_arrives) {
  const GenerateRequest one = accepted(Endpoint::completions, R"({
      "model": "model", "prompt": [1, 2, 3], "max_tokens": 7, "n": 3, "temperature": 0.5,
      "top_p": 0.25, "min_p": 0.125, "top_k": 9, "repetition_penalty": 1.5,
      "presence_penalty": -1, "frequency_penalty": 2, "logit_bias": {"5": -100, "6": 1.5},
      "seed": 18446744073709551615, "stop": ["a", "b"], "stop_token_ids": [4], "ignore_eos": true,
      "logprobs": 2, "user": "me"})");
  BOOST_TEST((std::get<TokenIds>(one.prompt) == TokenIds{1, 2, 3}));
  const graph::SamplingParams& s = one.sampling;
  graph::SamplingParams want;
  want.temperature = 0.5f;
  want.top_p = 0.25f;
  want.min_p = 0.125f;
  want.top_k = 9;
  want.repetition_penalty = 1.5f;
  want.presence_penalty = -1;
  want.frequency_penalty = 2;
  want.logit_bias = {{5, -100.0f}, {6, 1.5f}};
  want.max_new_tokens = 7;
  want.ignore_eos = true;
  want.stop = {"a", "b"};
  want.stop_token_ids = {4};
  want.num_top_logprobs = 2;
  BOOST_TEST((s == want));
  BOOST_TEST(one.num_choices == 3);
  BOOST_TEST(one.seed.value_or(0) == std::numeric_limits<uint64_t>::max());
  const auto two = accepted(Endpoint::chat_completions,
                            chat(R"("max_completion_tokens": 7, "max_tokens": 7, "stop": "a",
                                    "logprobs": true, "top_logprobs": 3, "seed": -1, "top_k": -1)"));
  BOOST_TEST(two.sampling.max_new_tokens == 7);
  BOOST_TEST(two.sampling.num_top_logprobs == 3);
  BOOST_TEST(two.sampling.top_k == 0);
  BOOST_TEST((two.sampling.stop == std::vector<std::string>{"a"}));
  BOOST_TEST(two.seed.value_or(0) == std::numeric_limits<uint64_t>::max());
  const auto three = accepted(Endpoint::chat_completions, chat(R"("logprobs": true)"));
  BOOST_TEST(three.sampling.num_top_logprobs == 0);
}

BOOST_AUTO_TEST_CASE(what_asks_for_nothing_is_accepted) {
  for (const char* more :
       {R"("stream": false)", R"("stream": null, "tools": null)", R"("tools": [])",
        R"("response_format": {"type": "text"})", R"("tool_choice": "none")",
        R"("max_tokens": null)", R"("metadata": {})", R"("logprobs": false)", R"("seed": null)"})
    accepted(Endpoint::chat_completions, chat(more));
  for (const char* more : {R"("best_of": 1)", R"("echo": false)", R"("suffix": "")"})
    accepted(Endpoint::completions, completion(more));
  accepted(Endpoint::completions, R"({"prompt": ["one"]})");
}

BOOST_AUTO_TEST_CASE(what_cannot_be_honoured_is_refused_by_name) {
  for (const Refused& c : kRefused) {
    const auto found = read(c.is_chat ? Endpoint::chat_completions : Endpoint::completions, c.body);
    BOOST_TEST_CONTEXT(c.body) {
      const auto* refusal = std::get_if<Refusal>(&found);
      BOOST_TEST_REQUIRE(refusal != nullptr);
      BOOST_TEST(refusal->param == c.param);
      BOOST_TEST(to_string(refusal->error.code) == to_string(c.code));
      BOOST_TEST(refusal->error.message.find(c.param) != std::string::npos, refusal->error.message);
    }
  }
}

BOOST_AUTO_TEST_CASE(hostile_json) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("{} x"), std::string(1 << 20, '['),
        R"({"a": )" + std::string(200, '[') + std::string(200, ']') + "}",
        std::string(R"({"a": {"b": 1, "b": 2}})"), std::string(R"([{"a": 1, "a": 1}])"),
        std::string("\"\\ud800\""), std::string("\"\xc3\x28\""), std::string("1e400")}) {
    const Result<Json> json = parse_json(text);
    BOOST_TEST(!json.ok(), text.substr(0, 60));
  }
  const std::string deepest = std::string(kJsonDepthMax, '[') + std::string(kJsonDepthMax, ']');
  BOOST_TEST(parse_json(deepest).ok());
  BOOST_TEST(!parse_json("[" + deepest + "]").ok());
  BOOST_TEST(parse_json(R"({"a": {"x": 1}, "b": {"x": 2}, "c": [{"x": 1}, {"x": 1}]})").ok());
}

BOOST_AUTO_TEST_CASE(answers) {
  const models::FakeTokenizer tokenizer({"a", "\xc3", "\xa9", "<|end|>"}, {3});
  Answer answer;
  answer.take({.deltas = {{.request = RequestId(5),
                           .choice = 1,
                           .tokens = {0},
                           .text = "a",
                           .logprobs = {{-0.5f, {{0, -0.5f}, {1, -1.5f}}}}}},
               .end = std::nullopt});
  answer.take({.deltas = {{.request = RequestId(5),
                           .choice = 0,
                           .tokens = {3},
                           .finish = graph::FinishReason::stop},
                          {.request = RequestId(5),
                           .choice = 1,
                           .tokens = {1, 2},
                           .text = "\xc3\xa9",
                           .logprobs = {{-1, {}}, {-std::numeric_limits<float>::infinity(), {}}},
                           .finish = graph::FinishReason::length}},
               .end = std::nullopt});
  answer.num_prompt_tokens = 10;
  const AnswerHead head{.id = "i", .created_unix_s = 9, .model = "m", .system_fingerprint = "f"};
  const auto chat_body = answer_body(Endpoint::chat_completions, head, answer, &tokenizer);
  BOOST_TEST(chat_body["object"] == "chat.completion");
  BOOST_TEST(chat_body["choices"][0]["message"]["content"] == "");
  BOOST_TEST(chat_body["choices"][0]["finish_reason"] == "stop");
  BOOST_TEST(chat_body["choices"][0]["logprobs"].is_null());
  BOOST_TEST(chat_body["choices"][1]["message"]["content"] == "a\xc3\xa9");
  BOOST_TEST(chat_body["choices"][1]["finish_reason"] == "length");
  const auto& content = chat_body["choices"][1]["logprobs"]["content"];
  BOOST_REQUIRE_EQUAL(content.size(), 3u);
  BOOST_TEST(content[0]["top_logprobs"][1]["logprob"] == -1.5);
  BOOST_TEST(content[1]["token"] == "\xef\xbf\xbd");
  BOOST_TEST(content[1]["bytes"][0] == 0xc3);
  BOOST_TEST(content[2]["logprob"] == -9999.0);
  BOOST_TEST(chat_body["usage"]["completion_tokens"] == 4);
  BOOST_TEST(chat_body["usage"]["total_tokens"] == 14);
  BOOST_TEST(!chat_body.dump().empty());  // valid UTF-8 throughout

  const auto body = answer_body(Endpoint::completions, head, answer, &tokenizer);
  BOOST_TEST(body["object"] == "text_completion");
  BOOST_TEST(body["choices"][1]["text"] == "a\xc3\xa9");
  const auto& logprobs = body["choices"][1]["logprobs"];
  BOOST_TEST(logprobs["tokens"][0] == "a");
  BOOST_TEST(logprobs["top_logprobs"][0]["a"] == -0.5);
  BOOST_TEST(logprobs["text_offset"].dump() == "[0,1,2]");
  BOOST_TEST(answer_body(Endpoint::completions, head, answer, nullptr)["choices"][1]["logprobs"]
                 .is_null());
}

BOOST_AUTO_TEST_CASE(errors_in_openais_form) {
  const auto body = error_body(make_error(ErrorCode::unimplemented, "why"), "tools")["error"];
  BOOST_TEST(body["message"] == "why");
  BOOST_TEST(body["type"] == "invalid_request_error");
  BOOST_TEST(body["param"] == "tools");
  BOOST_TEST(body["code"] == "unimplemented");
  const auto other = error_body(make_error(ErrorCode::overloaded, "later"), "")["error"];
  BOOST_TEST(other["type"] == "server_error");
  BOOST_TEST(other["param"].is_null());
  BOOST_TEST(http_status(ErrorCode::invalid_argument) == 400);
  BOOST_TEST(http_status(ErrorCode::not_found) == 404);
  BOOST_TEST(http_status(ErrorCode::overloaded) == 429);
  BOOST_TEST(http_status(ErrorCode::deadline_exceeded) == 504);
}

BOOST_AUTO_TEST_CASE(a_model_has_the_names_of_its_graph_and_file) {
  DeploymentInfo info;
  info.graph_name = "demo";
  info.plan.model_path = "/a/b.c.gguf";
  BOOST_TEST((model_names(info) == std::vector<std::string>{"demo", "b.c.gguf", "b.c"}));
}

}  // namespace chainpump::gateway::openai
