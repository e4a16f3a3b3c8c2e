#include "gateway/openai/request.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>
#include <span>

#include "graph/diagnostics.h"

namespace chainpump::gateway::openai {
namespace {

constexpr int32_t kLengthMax = std::numeric_limits<int32_t>::max();
constexpr int32_t kCompletionTokens = 16;  // OpenAI's default

/// The request as far as it has been read.
struct Draft {
  GenerateRequest out;
  const std::vector<std::string>& model_names;
  bool has_prompt = false;
  std::optional<int32_t> length;
  bool wants_logprobs = false;  // of a chat
  std::optional<int32_t> top_logprobs;
  std::string where;  // of the value that is being read
};

Error wrong(const Draft& draft, std::string_view must_be) {
  return make_error(ErrorCode::invalid_argument, "'{}' must be {}", draft.where, must_be);
}

Result<int64_t> integer(const Draft& draft, const Json& value, int64_t min, int64_t max) {
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX);
  if (!fits || value.get<int64_t>() < min || value.get<int64_t>() > max)
    return wrong(draft, fmt::format("a whole number from {} to {}", min, max));
  return value.get<int64_t>();
}

Status read_int32(const Draft& draft, const Json& value, int32_t min, int32_t& out) {
  ASSIGN_OR_RETURN(const int64_t number, integer(draft, value, min, kLengthMax));
  out = static_cast<int32_t>(number);
  return ok_status();
}

Status read_float(const Draft& draft, const Json& value, float& out) {
  if (!value.is_number()) return wrong(draft, "a number");
  out = value.get<float>();
  return ok_status();
}

Status read_bool(const Draft& draft, const Json& value, bool& out) {
  if (!value.is_boolean()) return wrong(draft, "true or false");
  out = value.get<bool>();
  return ok_status();
}

Status read_token_ids(Draft& draft, const Json& value, TokenIds& out) {
  for (const Json& id : value) {
    int32_t token = 0;
    RETURN_IF_ERROR(read_int32(draft, id, 0, token));
    out.push_back(token);
  }
  return ok_status();
}

Status read_model(Draft& draft, const Json& value) {
  if (!value.is_string()) return wrong(draft, "a string");
  const auto name = value.get<std::string>();
  const auto& served = draft.model_names;
  if (std::find(served.begin(), served.end(), name) != served.end()) return ok_status();
  return make_error(ErrorCode::not_found, "'model' names '{}'; served is {}", graph::shown(name),
                    fmt::join(served, " or "));
}

/// A string, or a list of parts that are text.
Result<std::string> read_content(Draft& draft, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return wrong(draft, "a string or a list of text parts");
  std::string text;
  const std::string where = draft.where;
  for (size_t i = 0; i < value.size(); ++i) {
    const Json& part = value[i];
    draft.where = fmt::format("{}[{}]", where, i);
    const bool is_text = part.is_object() && part.size() == 2 && part.contains("text") &&
                         part.value("type", Json()) == "text" && part["text"].is_string();
    if (!is_text) return wrong(draft, R"({"type": "text", "text": ...})");
    text += part["text"].get<std::string>();
  }
  return text;
}

Result<models::ChatMessage> read_message(Draft& draft, const Json& value) {
  const std::string where = draft.where;
  if (!value.is_object()) return wrong(draft, "an object with role and content");
  models::ChatMessage message;
  for (const auto& [key, field] : value.items()) {
    draft.where = fmt::format("{}.{}", where, graph::shown(key));
    if (key == "content") {
      ASSIGN_OR_RETURN(message.content, read_content(draft, field));
    } else if (key == "role" || key == "name") {
      if (!field.is_string()) return wrong(draft, "a string");
      if (key == "role")
        message.role = field.get<std::string>();
      else
        message.extra_json = Json({{"name", field}}).dump();
    } else if (!field.is_null()) {
      return make_error(ErrorCode::unimplemented,
                        "'{}' is not supported: a message has role, content and name", draft.where);
    }
  }
  for (const char* needed : {"role", "content"})
    if (!value.contains(needed)) {
      draft.where = where;
      return make_error(ErrorCode::invalid_argument, "'{}' has no {}", where, needed);
    }
  return message;
}

Status read_messages(Draft& draft, const Json& value) {
  if (!value.is_array() || value.empty()) return wrong(draft, "a list of messages, not empty");
  Chat chat;
  for (size_t i = 0; i < value.size(); ++i) {
    draft.where = fmt::format("messages[{}]", i);
    ASSIGN_OR_RETURN(models::ChatMessage message, read_message(draft, value[i]));
    chat.messages.push_back(std::move(message));
  }
  draft.out.prompt = std::move(chat);
  draft.has_prompt = true;
  return ok_status();
}

Status read_prompt(Draft& draft, const Json& value) {
  draft.has_prompt = true;
  const bool one_of_list = value.is_array() && value.size() == 1 && value[0].is_string();
  if (value.is_string() || one_of_list) {
    draft.out.prompt = RawText{(one_of_list ? value[0] : value).get<std::string>()};
    return ok_status();
  }
  if (!value.is_array() || value.empty()) return wrong(draft, "a string or a list of token ids");
  if (!value[0].is_number())
    return make_error(ErrorCode::unimplemented,
                      "'prompt' holds {} prompts: give each a request of its own", value.size());
  TokenIds ids;
  RETURN_IF_ERROR(read_token_ids(draft, value, ids));
  draft.out.prompt = std::move(ids);
  return ok_status();
}

Status read_stop(Draft& draft, const Json& value) {
  const Json list = value.is_array() ? value : Json::array({value});
  for (const Json& text : list) {
    if (!text.is_string()) return wrong(draft, "a string or a list of strings");
    draft.out.sampling.stop.push_back(text.get<std::string>());
  }
  return ok_status();
}

Status read_logit_bias(Draft& draft, const Json& value) {
  if (!value.is_object()) return wrong(draft, "an object of token ids and numbers");
  for (const auto& [key, bias] : value.items()) {
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 || !bias.is_number())
      return wrong(draft, "an object of token ids and numbers");
    draft.out.sampling.logit_bias.emplace_back(token, bias.get<float>());
  }
  return ok_status();
}

/// A negative one is another name for its two's complement.
Status read_seed(Draft& draft, const Json& value) {
  if (!value.is_number_integer()) return wrong(draft, "a whole number");
  draft.out.seed = value.is_number_unsigned() ? value.get<uint64_t>()
                                              : static_cast<uint64_t>(value.get<int64_t>());
  return ok_status();
}

Status read_length(Draft& draft, const Json& value) {
  int32_t length = 0;
  RETURN_IF_ERROR(read_int32(draft, value, 1, length));
  if (draft.length.value_or(length) != length)
    return make_error(ErrorCode::invalid_argument,
                      "'max_tokens' and 'max_completion_tokens' are two names of one number");
  draft.length = length;
  return ok_status();
}

/// Of a completion: how many of the likeliest tokens to tell beside the chosen one.
Status read_completion_logprobs(Draft& draft, const Json& value) {
  return read_int32(draft, value, 0, draft.out.sampling.num_top_logprobs);
}

Status read_top_logprobs(Draft& draft, const Json& value) {
  return read_int32(draft, value, 0, draft.top_logprobs.emplace());
}

Status read_stop_token_ids(Draft& draft, const Json& value) {
  if (!value.is_array()) return wrong(draft, "a list of token ids");
  return read_token_ids(draft, value, draft.out.sampling.stop_token_ids);
}

/// Says who asks, which changes nothing here.
Status read_user(Draft& draft, const Json& value) {
  return value.is_string() ? ok_status() : Status(wrong(draft, "a string"));
}

template <float graph::SamplingParams::*kMember>
Status read_sampling(Draft& draft, const Json& value) {
  return read_float(draft, value, draft.out.sampling.*kMember);
}

struct Field {
  std::string_view name;
  bool in_chat;
  bool in_completion;
  Status (*read)(Draft& draft, const Json& value);
};

using graph::SamplingParams;

constexpr Field kFields[] = {
    {"model", true, true, read_model},
    {"messages", true, false, read_messages},
    {"prompt", false, true, read_prompt},
    {"max_tokens", true, true, read_length},
    {"max_completion_tokens", true, false, read_length},
    {"n", true, true,
     [](Draft& d, const Json& v) { return read_int32(d, v, 1, d.out.num_choices); }},
    {"temperature", true, true, read_sampling<&SamplingParams::temperature>},
    {"top_p", true, true, read_sampling<&SamplingParams::top_p>},
    {"min_p", true, true, read_sampling<&SamplingParams::min_p>},
    {"top_k", true, true,
     [](Draft& d, const Json& v) { return read_int32(d, v, -1, d.out.sampling.top_k); }},
    {"repetition_penalty", true, true, read_sampling<&SamplingParams::repetition_penalty>},
    {"presence_penalty", true, true, read_sampling<&SamplingParams::presence_penalty>},
    {"frequency_penalty", true, true, read_sampling<&SamplingParams::frequency_penalty>},
    {"logit_bias", true, true, read_logit_bias},
    {"seed", true, true, read_seed},
    {"stop", true, true, read_stop},
    {"stop_token_ids", true, true, read_stop_token_ids},
    {"ignore_eos", true, true,
     [](Draft& d, const Json& v) { return read_bool(d, v, d.out.sampling.ignore_eos); }},
    {"logprobs", true, false,
     [](Draft& d, const Json& v) { return read_bool(d, v, d.wants_logprobs); }},
    {"logprobs", false, true, read_completion_logprobs},
    {"top_logprobs", true, false, read_top_logprobs},
    {"user", true, true, read_user},
};

/// Fields that this release cannot honour, each with the value that asks for nothing.
struct Unsupported {
  std::string_view name;
  const char* nothing;  // JSON
};
constexpr Unsupported kUnsupported[] = {
    {"stream", "false"},
    {"stream_options", "null"},
    {"tools", "[]"},
    {"tool_choice", R"("none")"},
    {"parallel_tool_calls", "null"},
    {"functions", "[]"},
    {"function_call", R"("none")"},
    {"response_format", R"({"type": "text"})"},
    {"best_of", "1"},
    {"echo", "false"},
    {"suffix", R"("")"},
    {"store", "false"},
    {"metadata", "{}"},
    {"service_tier", R"("auto")"},
    {"modalities", R"(["text"])"},
    {"audio", "null"},
    {"prediction", "null"},
    {"reasoning_effort", "null"},
};

const Field* find_field(Endpoint endpoint, std::string_view name) {
  const bool chat = endpoint == Endpoint::chat_completions;
  for (const Field& field : kFields)
    if (field.name == name && (chat ? field.in_chat : field.in_completion)) return &field;
  return nullptr;
}

Error no_such_field(Endpoint endpoint, std::string_view name) {
  std::vector<std::string_view> names;
  for (const Field& field : kFields)
    if (find_field(endpoint, field.name) != nullptr) names.push_back(field.name);
  return make_error(ErrorCode::invalid_argument, "there is no field '{}'{}", graph::shown(name),
                    graph::hint(name, names));
}

Status read_field(Endpoint endpoint, Draft& draft, const std::string& name, const Json& value) {
  draft.where = graph::shown(name);
  if (const Field* field = find_field(endpoint, name))
    return value.is_null() ? ok_status() : field->read(draft, value);
  for (const Unsupported& field : kUnsupported) {
    if (field.name != name) continue;
    if (value.is_null() || value == Json::parse(field.nothing)) return ok_status();
    return make_error(ErrorCode::unimplemented, "'{}' is not supported by this release", name);
  }
  return no_such_field(endpoint, name);
}

Status finish(Endpoint endpoint, Draft& draft) {
  const bool chat = endpoint == Endpoint::chat_completions;
  if (!draft.has_prompt) {
    draft.where = chat ? "messages" : "prompt";
    return make_error(ErrorCode::invalid_argument, "'{}' is missing", draft.where);
  }
  if (draft.top_logprobs && !draft.wants_logprobs) {
    draft.where = "top_logprobs";
    return make_error(ErrorCode::invalid_argument, "'top_logprobs' needs 'logprobs': true");
  }
  SamplingParams& sampling = draft.out.sampling;
  if (draft.wants_logprobs) sampling.num_top_logprobs = draft.top_logprobs.value_or(0);
  sampling.max_new_tokens = draft.length.value_or(chat ? kLengthMax : kCompletionTokens);
  if (sampling.top_k == -1) sampling.top_k = 0;  // vLLM's way to say "all"
  return ok_status();
}

}  // namespace

std::optional<Endpoint> endpoint_of(std::string_view path) {
  if (path == "/v1/chat/completions") return Endpoint::chat_completions;
  if (path == "/v1/completions") return Endpoint::completions;
  return std::nullopt;
}

std::variant<GenerateRequest, Refusal> read_body(Endpoint endpoint, const Json& body,
                                                 const std::vector<std::string>& model_names) {
  if (!body.is_object())
    return Refusal{make_error(ErrorCode::invalid_argument, "the body must be an object"), ""};
  Draft draft{.out = {}, .model_names = model_names, .where = {}};
  draft.out.sampling.temperature = 1;
  for (const auto& [name, value] : body.items())
    if (Status read = read_field(endpoint, draft, name, value); !read.ok())
      return Refusal{std::move(read).error(), draft.where};
  if (Status done = finish(endpoint, draft); !done.ok())
    return Refusal{std::move(done).error(), draft.where};
  return std::move(draft.out);
}

std::vector<std::string> model_names(const DeploymentInfo& deployment) {
  const std::filesystem::path file = deployment.plan.model_path;
  std::vector<std::string> names = {deployment.graph_name, file.filename().string()};
  if (file.extension() == ".gguf") names.push_back(file.stem().string());
  return names;
}

}  // namespace chainpump::gateway::openai
