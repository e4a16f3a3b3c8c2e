#include "actors/alarm.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/thread.h"

namespace chainpump::actors {
namespace {

constexpr Duration kLookAtMost = std::chrono::hours(1);  // no sum overflows

}  // namespace

Result<std::unique_ptr<Alarm>> Alarm::create() {
  std::unique_ptr<Alarm> alarm(new Alarm());
  ASSIGN_OR_RETURN(alarm->thread_,
                   start_thread("the alarm of lanes", [raw = alarm.get()] { raw->main(); }));
  return alarm;
}

Alarm::~Alarm() {
  if (!thread_.joinable()) return;  // it was refused
  CHECK(thread_.get_id() != std::this_thread::get_id());
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void Alarm::at(TimePoint when, std::function<void()> what) {
  const std::lock_guard lock(mutex_);
  calls_.emplace(when, std::move(what));
  changed_.notify_one();
}

void Alarm::main() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    if (calls_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Duration left = calls_.begin()->first - steady_clock().now();
    if (left > Duration(0)) {
      changed_.wait_for(lock, std::min(left, kLookAtMost));
      continue;
    }
    std::function<void()> call = std::move(calls_.extract(calls_.begin()).mapped());
    lock.unlock();
    call();
    call = nullptr;  // what it holds may end others
    lock.lock();
  }
}

}  // namespace chainpump::actors
