#include "cli/load_run.h"

#include <algorithm>

#include "base/thread.h"
#include "cli/progress.h"

namespace chainpump::cli {
namespace {

constexpr Duration kShowEvery = std::chrono::milliseconds(500);

}  // namespace

LoadRun::LoadRun(const std::vector<Arrival>& arrivals, uint64_t seed, ServicePool& services,
                 UnderWay& under_way)
    : arrivals_(arrivals),
      seed_(seed),
      services_(services),
      under_way_(under_way),
      served_(arrivals.size()) {}

Result<std::vector<ServedRequest>> LoadRun::run() {
  RETURN_IF_ERROR(services_.make_room(std::min(arrivals_.size(), ServicePool::kRequestsMax)));
  started_ = steady_clock().now();
  Status given = ok_status();
  for (size_t i = 0; i < arrivals_.size() && given.ok() && wait_for(arrivals_[i]); ++i)
    given = give_away(i);
  if (!given.ok()) under_way_.stop(given.error());
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    work_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  end_progress();
  RETURN_IF_ERROR(given);
  std::vector<ServedRequest> out;
  for (std::optional<ServedRequest>& request : served_)
    if (request) out.push_back(std::move(*request));
  return out;
}

/// Whether it is to be sent.
bool LoadRun::wait_for(const Arrival& arrival) {
  while (true) {
    const Duration left = arrival.at - now();
    const Duration piece = std::clamp(left, Duration(0), kShowEvery);
    if (under_way_.is_stopped_within(piece)) return false;
    if (left <= kShowEvery) return true;
    if (progress_is_rewritten())
      show_progress(fmt::format("bench serve: {:.0f} s, the last request comes at {:.0f} s",
                                to_seconds(now()), to_seconds(arrivals_.back().at)));
  }
}

Status LoadRun::give_away(size_t index) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back(index);
  if (waiting_.size() > num_idle_) {
    if (threads_.size() == ServicePool::kRequestsMax)
      return make_error(ErrorCode::overloaded,
                        "{} requests are under way, and one client can have no more: try a lower "
                        "--rate",
                        threads_.size());
    ASSIGN_OR_RETURN(std::thread thread,
                     start_thread("a request under way",
                                  [this, place = threads_.size()] { serve(services_.of(place)); }));
    threads_.push_back(std::move(thread));
    ++num_idle_;
  }
  work_.notify_one();
  return ok_status();
}

void LoadRun::serve(gateway::Service& service) {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const size_t index = waiting_.front();
    waiting_.erase(waiting_.begin());
    --num_idle_;
    lock.unlock();
    ServedRequest served = serve_one(service, index);
    lock.lock();
    ++num_idle_;
    if (served.error != ErrorCode::cancelled) served_[index] = std::move(served);
  }
}

ServedRequest LoadRun::serve_one(gateway::Service& service, size_t index) {
  const Arrival& arrival = arrivals_[index];
  gateway::GenerateRequest request;
  request.prompt =
      make_prompt(seed_, index, arrival.prompt_tokens, service.deployment().vocabulary_size);
  request.sampling.max_new_tokens = arrival.output_tokens;
  request.sampling.ignore_eos = true;  // lengths are the load's, not the model's
  request.seed = index;
  ServedRequest out{.at = arrival.at, .sent = now(), .prompt_tokens = arrival.prompt_tokens};
  const auto generating = service.generate(request);
  if (!generating.ok()) {
    out.was_refused = true;
    out.error = generating.error().code;
  } else {
    const auto end = under_way_.collect(**generating, [&](const gateway::Update& update) {
      for (const gateway::Delta& delta : update.deltas)
        out.tokens.insert(out.tokens.end(), delta.tokens.size(), now());
    });
    if (!end.ok()) out.error = end.error().code;
  }
  out.ended = now();
  return out;
}

}  // namespace chainpump::cli
