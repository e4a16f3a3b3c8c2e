#include "actors/service_beats.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/thread.h"

namespace chainpump::actors {
namespace {

ProcessId id_of(pid_t pid) { return ProcessId(static_cast<uint32_t>(pid)); }

}  // namespace

Result<std::unique_ptr<ServiceBeats>> ServiceBeats::create(OnHung on_hung) {
  std::unique_ptr<ServiceBeats> beats(new ServiceBeats(std::move(on_hung)));
  ASSIGN_OR_RETURN(beats->thread_, start_thread("the thread that watches a service's processes",
                                                [raw = beats.get()] { raw->main(); }));
  return beats;
}

ServiceBeats::~ServiceBeats() {
  if (!thread_.joinable()) return;  // it was refused
  CHECK(thread_.get_id() != std::this_thread::get_id());
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_one();
  }
  thread_.join();
  asks_.clear();  // with the connections their callbacks, which use the rest
}

void ServiceBeats::watch(pid_t pid, Ask ask) {
  const std::lock_guard lock(mutex_);
  asks_[pid] = std::move(ask);
  starting_.watch(id_of(pid), steady_clock().now());
  changed_.notify_one();
}

void ServiceBeats::forget(pid_t pid) {
  decltype(asks_)::node_type ask;  // ends without the lock: its callback may want it
  const std::lock_guard lock(mutex_);
  ask = asks_.extract(pid);
  starting_.forget(id_of(pid));
  working_.forget(id_of(pid));
}

void ServiceBeats::on_answer(pid_t pid, bool well) {
  const std::lock_guard lock(mutex_);
  if (!asks_.contains(pid)) return;
  const TimePoint now = steady_clock().now();
  const std::optional<uint64_t> count = well ? std::optional(++num_answers_) : std::nullopt;
  starting_.on_answer(id_of(pid), count, now);
  working_.on_answer(id_of(pid), count, now);
  if (!well || !starting_.forget(id_of(pid))) return;
  working_.watch(id_of(pid), now);
  changed_.notify_one();
}

void ServiceBeats::look(std::unique_lock<std::mutex>& lock) {
  std::vector<std::pair<pid_t, Ask>> asked;
  std::vector<std::pair<pid_t, Duration>> hung;
  for (graph::FailureDetector* detector : {&starting_, &working_}) {
    const graph::FailureDetector::Looked looked = detector->on_time(steady_clock().now());
    for (const ProcessId process : looked.ask) {
      const auto pid = static_cast<pid_t>(process.value);
      asked.emplace_back(pid, asks_.at(pid));
    }
    for (const auto& [process, silent_for, answers] : looked.hung)
      hung.emplace_back(static_cast<pid_t>(process.value), silent_for);
  }
  lock.unlock();
  for (const auto& [pid, ask] : asked)
    ask([this, pid = pid](const Result<Ok>& answer) { on_answer(pid, answer.ok()); });
  asked.clear();
  for (const auto& [pid, silent_for] : hung) {
    forget(pid);
    on_hung_(pid, silent_for);
  }
  lock.lock();
}

void ServiceBeats::main() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    look(lock);
    if (ending_) return;
    const std::optional<TimePoint> start = starting_.next_deadline();
    const std::optional<TimePoint> work = working_.next_deadline();
    if (!start && !work) {
      changed_.wait(lock);
      continue;
    }
    const TimePoint next = start && work ? std::min(*start, *work) : start ? *start : *work;
    changed_.wait_for(lock, std::max(Duration(0), next - steady_clock().now()));
  }
}

}  // namespace chainpump::actors
