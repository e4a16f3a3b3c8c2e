// What clients ask of the gateway and what they are told: plain structs, the same whether the
// gateway is in this process or behind the RPC (schemas/chainpump.capnp mirrors them and carries
// the prose). No RPC header. Plain data; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "actors/runtime.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "graph/health.h"
#include "graph/microbatch.h"
#include "graph/plan.h"
#include "graph/sampling_params.h"
#include "models/chat/chat_template.h"

namespace chainpump::gateway {

inline constexpr int32_t kMaxChoices = 16;
inline constexpr int32_t kPriorityMax = 100;
inline constexpr size_t kMaxMessages = 4096;  // of one chat
inline constexpr Duration kDeadlineMax = std::chrono::hours(24);

struct RawText {
  std::string text;  // as it is, with BOS if the model wants it
};
struct Chat {
  std::vector<models::ChatMessage> messages;  // through the model's template
};
using TokenIds = std::vector<TokenId>;
using Prompt = std::variant<RawText, Chat, TokenIds>;

/// What a client has of one choice, from a gateway that is no more.
struct ChoiceSoFar {
  std::vector<TokenId> tokens;
  graph::FinishReason finish = graph::FinishReason::none;
};

struct GenerateRequest {
  Prompt prompt;
  graph::SamplingParams sampling;    // its seed is not looked at
  std::optional<uint64_t> seed;      // none: the gateway draws one
  int32_t num_choices = 1;           // at most kMaxChoices
  int32_t priority = 0;              // higher goes first; up to kPriorityMax either way
  std::string tenant;                // as gateway/tenants.h has it
  Duration deadline = kDeadlineMax;  // from admission; at most kDeadlineMax
  /// None, or one for each choice: goes on from there, with the tokens and the text that would have
  /// followed. Needs the seed that it began with.
  std::vector<ChoiceSoFar> so_far = {};
};

/// The log-probability of a token that was chosen, and the likeliest ones in its place.
struct TokenLogprobs {
  float logprob = 0;
  std::vector<std::pair<TokenId, float>> top;
  bool operator==(const TokenLogprobs&) const = default;
};

/// What has become certain of one choice since its last delta. Text lags behind the tokens where it
/// may still become part of a stop string or of a character.
struct Delta {
  RequestId request;
  int32_t choice = 0;
  int32_t first_index = 0;  // of `tokens` within the choice, from 0
  std::vector<TokenId> tokens;
  std::string text;
  std::vector<TokenLogprobs> logprobs;  // one per token if they were asked for, else none
  graph::FinishReason finish = graph::FinishReason::none;  // of the choice, with its last delta
};

/// One choice as the gateway saw it.
struct ChoiceUsage {
  int32_t num_tokens = 0;
  graph::FinishReason finish = graph::FinishReason::none;
  Duration to_first_token{0};  // from admission
  Duration first_to_last{0};
};

/// How a generation that succeeded ended.
struct Usage {
  int32_t num_prompt_tokens = 0;
  std::vector<ChoiceUsage> choices;
};

/// Deltas in order, and the end once there is nothing after them.
struct Update {
  std::vector<Delta> deltas;
  std::optional<Result<Usage>> end;
  bool empty() const { return deltas.empty() && !end; }
};

struct ScoreRequest {
  TokenIds prompt;
  TokenIds targets;
  std::string full_path;  // .npy file for all log-probabilities; only within this process
  Duration deadline = kDeadlineMax;
};

/// One of each per target: its log-probability after the prompt and the targets before it, and the
/// likeliest token in its place.
struct Scores {
  std::vector<float> logprobs;
  std::vector<TokenId> argmax;
};

enum class Phase : uint8_t { loading, ready, failed, draining };
std::string_view to_string(Phase phase);

/// What a client may ask before it decides to be one.
struct DeploymentInfo {
  std::string graph_name;
  std::string graph_text;  // of the file that was deployed
  std::string build;       // release and commit
  std::string isa;         // what kernels are restricted to, or empty
  int32_t vocabulary_size = 0;
  bool has_chat_template = false;
  graph::Plan plan;
};

/// Ready only if a token has crossed every stage of some lane lately, and requests are taken.
using Readiness = graph::HealthReport;

struct StatusReport {
  Phase phase = Phase::loading;
  std::string message;  // why, if it failed
  int32_t pid = 0;      // of the gateway
  Duration uptime{0};
  int32_t num_requests = 0;   // admitted and not ended
  int32_t num_sequences = 0;  // theirs that run or wait
  uint64_t num_completed = 0;
  uint64_t num_failed = 0;  // by an error of any kind but a cancel
  uint64_t num_cancelled = 0;
  uint64_t num_refused = 0;      // before admission
  uint64_t num_tokens = 0;       // generated
  double tokens_per_second = 0;  // of the last ten seconds
  int64_t num_tokens_held = 0;   // positions of all live sequences: at most what they hold of KV
  actors::RuntimeReport stages;  // empty until it is ready, and if the stages do not answer
  std::string stages_missing;    // why they are not there, if they should be
  Readiness readiness;
};

struct Event {
  uint64_t number = 0;  // from 1, without gaps
  int64_t unix_ms = 0;
  Phase phase = Phase::loading;
  std::string message;
};

/// The end of whatever waits for a service whose connection is lost; no request has it as its own.
Error gone();
bool is_gone(const Error& error);

/// The time that an `overloaded` refusal asks a client to wait: its message ends in
/// "; retry after N s".
std::optional<Duration> retry_after(const Error& error);

}  // namespace chainpump::gateway
