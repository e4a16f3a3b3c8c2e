// Whether a thread is inside a callback of a runtime: there, whoever calls back must not wait for
// the threads that do so. Any thread.
#pragma once

#include <utility>

namespace chainpump::actors {

inline thread_local bool t_in_callback = false;

struct CallbackScope {
  bool before = std::exchange(t_in_callback, true);
  CallbackScope() = default;
  ~CallbackScope() { t_in_callback = before; }
  CallbackScope(const CallbackScope&) = delete;
  CallbackScope& operator=(const CallbackScope&) = delete;
};

}  // namespace chainpump::actors
