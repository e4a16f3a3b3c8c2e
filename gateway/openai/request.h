// A request in OpenAI's words, the JSON body of a completion or chat completion, as what the
// gateway is asked. Nothing is ignored: a field that cannot be honoured is refused by its name,
// unless its value is the one that asks for nothing (`"stream": false`, null). Beside OpenAI's
// fields it takes top_k, min_p, repetition_penalty, ignore_eos and stop_token_ids, as vLLM calls
// them. Bounds of numbers are checked by the gateway (graph/sampling_params.h). Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/openai/json_text.h"
#include "gateway/types.h"

namespace chainpump::gateway::openai {

enum class Endpoint : uint8_t { chat_completions, completions };

/// Of a URL's path: "/v1/chat/completions", "/v1/completions".
std::optional<Endpoint> endpoint_of(std::string_view path);

/// Why a body was refused, and the field that is to blame: "messages[1].content".
struct Refusal {
  Error error;
  std::string param;
};

/// `model_names`: what the body's `model` may be, if it names one. A missing temperature is 1, a
/// missing length 16 tokens for a completion, and for a chat what the context has room for.
std::variant<GenerateRequest, Refusal> read_body(Endpoint endpoint, const Json& body,
                                                 const std::vector<std::string>& model_names);

/// What a deployment's model may be called: its graph's name, its file's, and that without `.gguf`.
std::vector<std::string> model_names(const DeploymentInfo& deployment);

}  // namespace chainpump::gateway::openai
