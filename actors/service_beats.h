// Whether a service's node agent and coordinator are at work. Each is asked ten times a second,
// over its control socket, a question that costs nothing; one that has not answered for 0.75 s
// hangs. Until it has answered once it starts, and has ten seconds for that. A process of ours that
// was itself stopped or starved meanwhile blames nobody (graph/failure_detector.h).
//
// Thread rule: any but its own. Asks and tells on one of its own.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "graph/failure_detector.h"
#include "transport/rpc/rpc_thread.h"

namespace chainpump::actors {

class ServiceBeats {
 public:
  /// Asks a process; the callback comes once, on a thread of the control protocol's. Owns the
  /// connection to it.
  using Ask = std::function<void(transport::rpc::Callback<Ok> answer)>;
  /// Once of each process; it is not asked any more.
  using OnHung = std::function<void(pid_t pid, Duration silent_for)>;

  /// no_room if the system refuses the thread.
  static Result<std::unique_ptr<ServiceBeats>> create(OnHung on_hung);
  /// No callback runs after this returns. Not on its own thread.
  ~ServiceBeats();
  ServiceBeats(const ServiceBeats&) = delete;
  ServiceBeats& operator=(const ServiceBeats&) = delete;

  void watch(pid_t pid, Ask ask);
  /// It has ended, or ends. One that is not watched is no error.
  void forget(pid_t pid);

 private:
  explicit ServiceBeats(OnHung on_hung) : on_hung_(std::move(on_hung)) {}
  void main();
  void look(std::unique_lock<std::mutex>& lock);
  void on_answer(pid_t pid, bool well);

  static constexpr graph::FailureDetectorLimits kStart = {.period = std::chrono::milliseconds(100),
                                                          .hang_max = std::chrono::seconds(10)};

  const OnHung on_hung_;
  std::mutex mutex_;
  std::condition_variable changed_;
  graph::FailureDetector starting_{kStart};
  graph::FailureDetector working_{graph::FailureDetectorLimits{}};
  std::map<pid_t, Ask> asks_;  // of all who are watched
  uint64_t num_answers_ = 0;   // each shows that somebody is at work: a count that grows
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace chainpump::actors
