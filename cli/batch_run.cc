#include "cli/batch_run.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "base/thread.h"
#include "cli/progress.h"

namespace chainpump::cli {
namespace {

constexpr Duration kStatusMax = std::chrono::seconds(5);
constexpr Duration kRewriteEvery = std::chrono::milliseconds(200);
constexpr Duration kPrintEvery = std::chrono::seconds(10);
constexpr Duration kSyncEvery = std::chrono::seconds(5);

/// So many lines at once that as many wait as run: what ends is followed at once.
size_t lines_at_once(const graph::Plan& plan) {
  const int32_t running = plan.max_sequences * num_lanes(plan);
  const int32_t waiting = std::min(running, plan.max_queued);
  return std::clamp(static_cast<size_t>(running + waiting), size_t{1}, ServicePool::kRequestsMax);
}

}  // namespace

BatchRun::BatchRun(const BatchInput& input, BatchOutput& output, ServicePool& services,
                   BatchTerms terms, UnderWay& under_way)
    : input_(input),
      output_(output),
      services_(services),
      terms_(std::move(terms)),
      under_way_(under_way) {
  counts_.lines = input.lines().size();
  counts_.before = output.num_done();
}

Status BatchRun::run() {
  ASSIGN_OR_RETURN(std::string fingerprint, system_fingerprint());
  const gateway::DeploymentInfo& deployment = services_.first().deployment();
  const size_t num_workers =
      std::min(lines_at_once(deployment.plan), counts_.lines - counts_.before);
  RETURN_IF_ERROR(services_.make_room(num_workers));
  BatchAnswerer answerer(input_, deployment, std::move(fingerprint), terms_, under_way_);
  const Status done = work(answerer, num_workers);
  RETURN_IF_ERROR(output_.sync());
  return done;
}

/// Answers of two kinds of arithmetic must not come to stand in one output.
Result<std::string> BatchRun::system_fingerprint() {
  ASSIGN_OR_RETURN(const gateway::StatusReport status, services_.first().status(kStatusMax));
  const std::string& ours = status.stages.numerics_id;
  const std::string& theirs = output_.system_fingerprint().value_or(ours);
  if (ours == theirs) return ours;
  return make_error(ErrorCode::invalid_argument,
                    "the answers that are there are of {}, and this deployment is {}: with another "
                    "model, type of KV or machine, answers would not belong together",
                    theirs, ours);
}

Status BatchRun::work(BatchAnswerer& answerer, size_t num_workers) {
  std::vector<std::thread> workers;
  for (size_t i = 0; i < num_workers; ++i) {
    {
      const std::lock_guard lock(mutex_);
      ++num_working_;
    }
    Result<std::thread> worker = start_thread("a line under way", [this, i, &answerer] {
      work_on_lines(answerer, services_.of(i));
      const std::lock_guard lock(mutex_);
      --num_working_;
      ended_.notify_all();
    });
    if (!worker.ok()) {  // with fewer it takes longer
      const std::lock_guard lock(mutex_);
      --num_working_;
      if (workers.empty()) return worker.error();
      break;
    }
    workers.push_back(std::move(*worker));
  }
  show_progress_until_done();
  for (std::thread& worker : workers) worker.join();
  end_progress();
  if (auto error = under_way_.error()) return std::move(*error);
  return ok_status();
}

void BatchRun::work_on_lines(BatchAnswerer& answerer, gateway::Service& service) {
  while (const std::optional<size_t> index = next_line()) {
    const Result<BatchEntry> entry = answerer.answer(service, input_.lines()[*index]);
    const Status done = entry.ok() ? append(*entry) : Status(entry.error());
    if (!done.ok()) return under_way_.stop(done.error());
  }
}

std::optional<size_t> BatchRun::next_line() {
  if (under_way_.error()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  while (next_ < counts_.lines && output_.done()[next_]) ++next_;
  return next_ < counts_.lines ? std::optional(next_++) : std::nullopt;
}

Status BatchRun::append(const BatchEntry& entry) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(output_.append(entry.text));
  ++counts_.done;
  counts_.failed += entry.failed ? 1 : 0;
  counts_.tokens += entry.tokens;
  return ok_status();
}

void BatchRun::show_progress_until_done() {
  const Duration every = progress_is_rewritten() ? kRewriteEvery : kPrintEvery;
  TimePoint shown = started_;
  TimePoint synced = started_;
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, kRewriteEvery, [this] { return num_working_ == 0; })) {
    const TimePoint now = steady_clock().now();
    if (now - synced >= kSyncEvery) {
      synced = now;
      if (const Status done = output_.sync(); !done.ok()) under_way_.stop(done.error());
    }
    if (now - shown < every) continue;
    shown = now;
    show_progress("batch: " + progress_text(counts_, now - started_));
  }
}

BatchCounts BatchRun::counts() {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace chainpump::cli
