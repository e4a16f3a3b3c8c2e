// A thread that calls others when their time has come: for waits that nobody's thread sits out.
//
// Thread rule: any; what it calls must be short, and may call at(). Ends with the object, which
// must not be in one of its calls; what was still to come is dropped.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::actors {

class Alarm {
 public:
  /// no_room if the system refuses the thread.
  static Result<std::unique_ptr<Alarm>> create();
  ~Alarm();
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  /// By the machine's clock; at once if that is over. Never in the caller's own call.
  void at(TimePoint when, std::function<void()> what);

 private:
  Alarm() = default;
  void main();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<TimePoint, std::function<void()>> calls_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace chainpump::actors
