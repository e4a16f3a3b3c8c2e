#include "cli/batch_answer.h"

#include <chrono>

namespace chainpump::cli {
namespace {

namespace openai = gateway::openai;

constexpr Duration kAdmitMax = std::chrono::minutes(10);  // while others fill the service
constexpr Duration kStatusMax = std::chrono::seconds(5);
constexpr int kTriesMax = 3;  // of a request that the service ends for want of room

int64_t unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// Whether the request would have it from any service, at any time.
bool is_the_requests(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_found:
    case ErrorCode::unimplemented:
    case ErrorCode::no_room:
      return true;
    case ErrorCode::bad_file:
    case ErrorCode::overloaded:
    case ErrorCode::disconnected:
    case ErrorCode::deadline_exceeded:  // of a day, or of a service that does not answer
    case ErrorCode::cancelled:
    case ErrorCode::internal:
      return false;
  }
  return false;
}

bool is_healthy(gateway::Service& service) {
  const Result<gateway::StatusReport> status = service.status(kStatusMax);
  return status.ok() && status->phase == gateway::Phase::ready &&
         service.wait_ready(Duration(0)).ok();
}

}  // namespace

struct BatchAnswerer::Asked {
  EntryKey key;
  std::string custom_id;
  openai::Endpoint endpoint;
  gateway::GenerateRequest request;

  BatchEntry refused(const Error& error, const std::string& param) const {
    return {.text = answered_entry(key, custom_id, openai::http_status(error.code), "",
                                   openai::error_body(error, param)),
            .failed = true};
  }
};

BatchAnswerer::BatchAnswerer(const BatchInput& input, const gateway::DeploymentInfo& deployment,
                             std::string system_fingerprint, BatchTerms terms, UnderWay& under_way)
    : input_(input),
      deployment_(deployment),
      model_names_(openai::model_names(deployment)),
      system_fingerprint_(std::move(system_fingerprint)),
      terms_(std::move(terms)),
      under_way_(under_way) {}

Result<BatchEntry> BatchAnswerer::answer(gateway::Service& service, const InputLine& line) {
  const EntryKey key{.fingerprint = input_.fingerprint(), .line = line.number};
  ReadLine read = read_batch_line(line.text);
  if (!read.line.ok())
    return BatchEntry{.text = unread_entry(key, read.custom_id, read.line.error()), .failed = true};
  Asked asked{.key = key,
              .custom_id = std::move(read.line->custom_id),
              .endpoint = read.line->endpoint,
              .request = {}};
  auto request = openai::read_body(asked.endpoint, read.line->body, model_names_);
  if (const auto* refusal = std::get_if<openai::Refusal>(&request))
    return asked.refused(refusal->error, refusal->param);
  asked.request = std::get<gateway::GenerateRequest>(std::move(request));
  asked.request.priority = terms_.priority;
  asked.request.tenant = terms_.tenant;
  if (!asked.request.seed) asked.request.seed = input_.seed_of(line);
  return ask(service, asked);
}

Result<BatchEntry> BatchAnswerer::ask(gateway::Service& service, const Asked& asked) {
  for (int tries = 1;; ++tries) {
    auto generating = admit(service, asked);
    openai::Answer out;
    Result<gateway::Usage> end =
        generating.ok() ? under_way_.collect(**generating, [&](const auto& u) { out.take(u); })
                        : Result<gateway::Usage>(generating.error());
    if (end.ok()) {
      out.num_prompt_tokens = end->num_prompt_tokens;
      return answered(asked, out);
    }
    const Error& error = end.error();
    if (is_the_requests(error.code) ||
        (error.code == ErrorCode::internal && generating.ok() && is_healthy(service)))
      return asked.refused(error, "");
    const bool again = generating.ok() && error.code == ErrorCode::overloaded && tries < kTriesMax;
    if (!again) return error;
  }
}

Result<std::unique_ptr<gateway::Generating>> BatchAnswerer::admit(gateway::Service& service,
                                                                  const Asked& asked) {
  const TimePoint until = steady_clock().now() + kAdmitMax;
  while (true) {
    auto generating = service.generate(asked.request);
    if (generating.ok()) return generating;
    const std::optional<Duration> wait = gateway::retry_after(generating.error());
    const bool later = generating.error().code == ErrorCode::overloaded && wait &&
                       steady_clock().now() + *wait < until;
    if (!later || under_way_.is_stopped_within(*wait)) return generating;
  }
}

Result<BatchEntry> BatchAnswerer::answered(const Asked& asked, const openai::Answer& answer) {
  const models::Tokenizer* spells = nullptr;
  if (asked.request.sampling.num_top_logprobs >= 0) {
    ASSIGN_OR_RETURN(spells, tokenizer());
  }
  const bool chat = asked.endpoint == openai::Endpoint::chat_completions;
  const std::string request = fmt::format("{:016x}", answer.request.value);
  const openai::AnswerHead head{.id = (chat ? "chatcmpl-" : "cmpl-") + request,
                                .created_unix_s = unix_s(),
                                .model = deployment_.graph_name,
                                .system_fingerprint = system_fingerprint_};
  return BatchEntry{.text = answered_entry(asked.key, asked.custom_id, 200, "req_" + request,
                                           answer_body(asked.endpoint, head, answer, spells)),
                    .tokens = answer.num_tokens()};
}

Result<const models::Tokenizer*> BatchAnswerer::tokenizer() {
  const std::lock_guard lock(mutex_);
  if (!tokenizer_) {
    ASSIGN_OR_RETURN(const models::GgufFile model,
                     models::GgufFile::open(deployment_.plan.model_path));
    ASSIGN_OR_RETURN(tokenizer_, models::load_tokenizer(model));
  }
  return tokenizer_.get();
}

}  // namespace chainpump::cli
