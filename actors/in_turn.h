// Tasks of many threads, one at a time, without a thread of their own and without anybody waiting:
// whoever comes while one runs leaves his behind, and whoever runs that runs this after it. So what
// a task does needs no lock against the others, and it may itself hand in more.
//
// Thread rule: any. The caller keeps this alive while run() lasts, which may run others' tasks too.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <utility>

namespace chainpump::actors {

class InTurn {
 public:
  using Task = std::function<void()>;

  /// Has run when this returns, unless another thread runs one now, or a task is calling.
  void run(Task task) {
    std::unique_lock lock(mutex_);
    tasks_.push_back(std::move(task));
    if (std::exchange(running_, true)) return;
    while (!tasks_.empty()) {
      Task next = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      next();
      next = nullptr;  // what it holds may end others
      lock.lock();
    }
    running_ = false;
  }
  /// Has run when this returns. Not in a task.
  void run_and_wait(const Task& task) {
    std::promise<void> done;
    run([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }

 private:
  std::mutex mutex_;
  std::deque<Task> tasks_;
  bool running_ = false;
};

}  // namespace chainpump::actors
