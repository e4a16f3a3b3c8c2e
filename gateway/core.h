// The gateway without its doors: it checks what can be wrong, turns prompts into tokens, admits or
// refuses, and keeps account of what is under way. Doors (gateway/rpc, a command of its own) call
// it and deliver what it makes.
//
// Thread rule: any thread. Nothing here waits, and nothing has a timer: somebody calls tick() about
// ten times a second. It must outlive the requests that it made, and the engine must outlive it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "gateway/admission.h"
#include "gateway/generation.h"
#include "gateway/prompt_encoder.h"
#include "gateway/scoring.h"
#include "gateway/tenants.h"
#include "gateway/types.h"

namespace chainpump::gateway {

struct CoreOptions {
  size_t buffer_bytes_max = 256 << 10;  // of one request's results that nobody has taken yet
};

class Core {
 public:
  /// `info.vocabulary_size` and `has_chat_template` are filled in here; its plan says how many
  /// sequences may run and how many wait.
  Core(Engine& engine, PromptEncoder encoder, DeploymentInfo info, const CoreOptions& options,
       const Clock& clock);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  /// As it is now: it may go on by another plan (Runtime::planned()).
  std::shared_ptr<const DeploymentInfo> deployment() const;

  /// Errors as PromptEncoder::encode.
  Result<TokenIds> tokenize(const Prompt& prompt) const { return encoder_.encode(prompt); }

  /// Admits a request, or says why not, before anything runs: invalid_argument and whatever the
  /// prompt's encoding gives; overloaded (no room, still loading, or draining); if the deployment
  /// has failed, its error. The request ends when whoever holds it cancels it; letting go of it
  /// alone does not.
  Result<std::shared_ptr<Generation>> generate(const GenerateRequest& request, Wake wake);
  Result<std::shared_ptr<Scoring>> score(const ScoreRequest& request, Wake wake);

  /// Everything but the stages' own counters.
  StatusReport status();
  /// Whether it is ready now, and if not, which lane is not and why. Without waiting.
  Readiness readiness() const;
  /// Those, from the engine; this one waits for it. overloaded before it is ready.
  Result<actors::RuntimeReport> stages(Duration timeout) const { return engine_.report(timeout); }

  /// What a rank did; as Runtime::trace. This one waits for the engine, too.
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration timeout) const {
    return engine_.trace(rank, since, timeout);
  }

  // The deployment's life, told by whoever runs it:
  /// How far the stages have come; no event of its own.
  void set_loading(std::string message);
  void set_ready(std::string message);
  /// Ends all requests with `error`, and refuses those that come.
  void set_failed(const Error& error);
  void set_draining();
  /// Deadlines, and cancels that no stage answers.
  void tick();
  void cancel_all();
  /// Whether every admitted request has ended.
  bool idle() const { return tally_->num_live() == 0; }

  /// The events after `number`, oldest first; the last few hundred are kept.
  std::vector<Event> events_after(uint64_t number) const;

  Phase phase() const;
  /// Ok if requests are taken now, else what one would be answered.
  Status check_open() const;

 private:
  Status check(const GenerateRequest& request) const;
  Status check_length(size_t num_tokens, bool scoring) const;
  template <typename T>
  Result<std::shared_ptr<T>> refused(Error error) const;
  void keep(const std::shared_ptr<LiveRequest>& request);
  RequestId next_id();
  /// Those that somebody still holds or the engine still works on.
  std::vector<std::shared_ptr<LiveRequest>> live();
  void set_phase(Phase phase, std::string message);  // with mutex_ held, or before anyone else

  Engine& engine_;
  const PromptEncoder encoder_;
  const CoreOptions options_;
  const Clock& clock_;
  const TimePoint started_;
  const std::shared_ptr<Admission> admission_;
  const std::shared_ptr<Tally> tally_;
  Tenants tenants_;

  mutable std::mutex info_mutex_;
  mutable std::shared_ptr<const DeploymentInfo> info_;
  mutable std::shared_ptr<const actors::Planned> planned_;  // that it says

  mutable std::mutex mutex_;
  uint64_t last_request_;
  std::map<RequestId, std::weak_ptr<LiveRequest>> requests_;
  Phase phase_ = Phase::loading;
  std::optional<Error> failure_;
  std::deque<Event> events_;
};

}  // namespace chainpump::gateway
