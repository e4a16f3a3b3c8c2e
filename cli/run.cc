#include "cli/run.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <optional>

#include "actors/os/signals.h"
#include "base/random_bits.h"
#include "cli/client.h"
#include "cli/exit_status.h"
#include "cli/generation.h"
#include "cli/prompt_source.h"
#include "cli/run_report.h"
#include "models/tokenizer/utf8.h"

namespace chainpump::cli {
namespace {

constexpr Duration kReportMax = std::chrono::seconds(5);

/// What a full disk or a reader that has left did not take must not end as success.
Status text_shown() {
  if (std::ferror(stdout) == 0) return ok_status();
  return make_error(ErrorCode::internal, "standard output cannot be written");
}

/// Whether it could be shown.
bool show_text(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

/// A signal ends the request under way, and with it the command; a second one ends it at once.
class Interrupter {
 public:
  Status start() {
    ASSIGN_OR_RETURN(signals_, os::TerminationSignals::create([this](int signal) {
                       if (signal_.exchange(signal) != 0) ::_exit(128 + signal);
                       const std::lock_guard lock(mutex_);
                       // While loading or between prompts there is nothing to finish: the ranks
                       // end with their parent.
                       if (!generation_ || !generation_->interrupt()) ::_exit(128 + signal);
                     }));
    return ok_status();
  }
  void set_generation(Generation* generation) {
    const std::lock_guard lock(mutex_);
    generation_ = generation;
  }
  int signal() const { return signal_; }

 private:
  std::atomic<int> signal_{0};
  std::mutex mutex_;
  Generation* generation_ = nullptr;
  std::unique_ptr<os::TerminationSignals> signals_;
};

Status generate_once(const RunOptions& options, gateway::Service& service, Generation& generation) {
  ASSIGN_OR_RETURN(const gateway::Prompt asked,
                   prompt_of(options, service.deployment().has_chat_template));
  ASSIGN_OR_RETURN(const gateway::TokenIds prompt, service.tokenize(asked));
  RETURN_IF_ERROR(wait_ready(service));
  ASSIGN_OR_RETURN(const gateway::StatusReport before, service.status(kReportMax));
  const Result<Generated> run =
      generation.run(prompt, options.sampling,
                     [&](std::string_view text) { return options.json || show_text(text); });
  RETURN_IF_ERROR(text_shown());
  ASSIGN_OR_RETURN(const Generated generated, run);
  ASSIGN_OR_RETURN(const gateway::StatusReport after, service.status(kReportMax));
  const actors::RuntimeReport report = since(before.stages, after.stages);
  if (options.json) {
    show_text(run_json(generated, prompt, options.sampling.seed, report) + "\n");
  } else {
    show_text("\n");
    std::fputs(summary(generated, prompt.size(), report).c_str(), stderr);
  }
  return text_shown();
}

/// What has been said on both sides, and how much of it a prompt may hold.
struct Conversation {
  gateway::Chat chat;
  size_t num_kept;  // at the beginning, for ever: the system message
  size_t context_tokens;
  size_t answer_tokens;  // wished for

  /// The prompt of the next answer. Where it leaves no room, the oldest turns are forgotten.
  Result<gateway::TokenIds> prompt(gateway::Service& service) {
    auto& messages = chat.messages;
    const size_t room = context_tokens - std::min(answer_tokens, context_tokens / 2);
    bool forgot = false;
    while (true) {
      ASSIGN_OR_RETURN(gateway::TokenIds tokens, service.tokenize(chat));
      if (tokens.size() <= room || messages.size() < num_kept + 3) {
        if (forgot)
          std::fprintf(stderr, "[forgot the oldest of this chat: the context holds %zu tokens]\n",
                       context_tokens);
        return tokens;
      }
      const auto oldest = messages.begin() + static_cast<ptrdiff_t>(num_kept);
      messages.erase(oldest, oldest + 2);
      forgot = true;
    }
  }
};

/// Lines from the terminal.
class Lines {
 public:
  /// Without its end; none when the input has ended. An error if the deployment ends meanwhile.
  Result<std::optional<std::string>> next(gateway::Service& service) {
    while (true) {
      if (const size_t end = typed_.find('\n'); end != std::string::npos) {
        std::string line = typed_.substr(0, end);
        typed_.erase(0, end + 1);
        return std::optional(std::move(line));
      }
      if (ended_) return std::optional<std::string>();
      pollfd ready{STDIN_FILENO, POLLIN, 0};
      if (::poll(&ready, 1, kDeathCheckMs) <= 0) {
        RETURN_IF_ERROR(service.wait_ready(Duration(0)));
        continue;
      }
      char buffer[4096];
      const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
      if (got < 0 && errno == EINTR) continue;
      if (got > 0) {
        typed_.append(buffer, static_cast<size_t>(got));
        continue;
      }
      ended_ = true;
      if (!typed_.empty()) typed_ += '\n';
    }
  }

 private:
  static constexpr int kDeathCheckMs = 300;
  std::string typed_;
  bool ended_ = false;
};

/// Reads lines until the input ends; the conversation so far is the prompt of each turn.
Status chat(const RunOptions& options, gateway::Service& service, Generation& generation,
            const Interrupter& interrupter) {
  if (!service.deployment().has_chat_template)
    return make_error(ErrorCode::not_found,
                      "the model has no chat template: give a prompt, with --raw");
  RETURN_IF_ERROR(wait_ready(service));
  std::fprintf(stderr, "Chat with the model; an empty line or Ctrl-D ends it.\n");
  Conversation said{.chat = {},
                    .num_kept = options.system.empty() ? size_t{0} : size_t{1},
                    .context_tokens = static_cast<size_t>(service.deployment().plan.context_tokens),
                    .answer_tokens = static_cast<size_t>(options.sampling.max_new_tokens)};
  auto& messages = said.chat.messages;
  if (said.num_kept > 0) messages.push_back({.role = "system", .content = options.system});
  Lines lines;
  while (interrupter.signal() == 0) {
    std::fprintf(stderr, "\n> ");
    ASSIGN_OR_RETURN(const std::optional<std::string> line, lines.next(service));
    if (!line || line->empty()) break;
    if (const size_t at = models::find_invalid_utf8(*line); at != std::string::npos) {
      std::fprintf(stderr, "[that line is not valid UTF-8 at byte %zu; say it again]\n", at);
      continue;
    }
    messages.push_back({.role = "user", .content = *line});
    ASSIGN_OR_RETURN(const std::vector<TokenId> prompt, said.prompt(service));
    if (prompt.size() >= said.context_tokens) {
      std::fprintf(stderr, "[that makes a prompt of %zu tokens; the context holds %zu: say less]\n",
                   prompt.size(), said.context_tokens);
      messages.pop_back();
      continue;
    }
    Result<Generated> run = generation.run(prompt, options.sampling, show_text);
    RETURN_IF_ERROR(text_shown());
    ASSIGN_OR_RETURN(Generated generated, std::move(run));
    std::fprintf(stderr, "\n[%zu tokens%s, first after %.0f ms, %.1f tokens/s]\n",
                 generated.token_ids.size(),
                 generated.finish == graph::FinishReason::length ? ", cut off at the limit" : "",
                 to_ms(generated.to_first_token), generated.tokens_per_second());
    messages.push_back({.role = "assistant", .content = std::move(generated.text)});
  }
  return ok_status();
}

Status run_deployed(const RunOptions& options, Interrupter& interrupter) {
  const bool wants_chat = !options.prompt && !options.prompt_file && !options.prompt_ids;
  if (wants_chat && (options.json || options.raw || ::isatty(STDIN_FILENO) == 0))
    return make_error(ErrorCode::invalid_argument,
                      "no prompt: give --prompt TEXT, --prompt-file FILE or --prompt-ids 1,2,3 "
                      "(a chat needs a terminal)");
  ASSIGN_OR_RETURN(const std::unique_ptr<gateway::Service> service, open_service(options.deploy));
  RETURN_IF_ERROR(validate(options.sampling, service->deployment().vocabulary_size));
  Generation generation(*service);
  interrupter.set_generation(&generation);
  const Status done = wants_chat ? chat(options, *service, generation, interrupter)
                                 : generate_once(options, *service, generation);
  interrupter.set_generation(nullptr);
  return done;
}

}  // namespace

int run_run(RunOptions options) {
  ::signal(SIGPIPE, SIG_IGN);  // a reader that has left is an error like a full disk
  Interrupter interrupter;
  const Status listening = interrupter.start();
  options.sampling.seed = options.seed ? *options.seed : random_bits();
  const Status done = listening.ok() ? run_deployed(options, interrupter) : listening;
  if (interrupter.signal() != 0) return 128 + interrupter.signal();
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
