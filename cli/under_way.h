// What many threads have under way with a service, and its common end: the first error, or an
// interrupt, cancels all of it. Any thread.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>

#include "gateway/service.h"

namespace chainpump::cli {

class UnderWay {
 public:
  /// Cancels what is under way, and what comes to be. The first error counts.
  void stop(const Error& error);
  std::optional<Error> error();
  /// Whether it is stopped, or comes to be within that time.
  bool is_stopped_within(Duration duration);

  /// Until its end, or its cancel: the results go to `take`, one call at a time.
  template <typename F>
  Result<gateway::Usage> collect(gateway::Generating& generating, F&& take) {
    const Member member(*this, generating);
    while (true) {
      gateway::Update update = generating.next(kPatience);
      if (!update.deltas.empty()) take(update);
      if (update.end) return std::move(*update.end);
    }
  }

 private:
  static constexpr Duration kPatience = std::chrono::seconds(10);  // for news; then it asks again

  class Member {
   public:
    Member(UnderWay& all, gateway::Generating& generating);
    ~Member();
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    UnderWay& all_;
    gateway::Generating& generating_;
  };

  std::mutex mutex_;
  std::condition_variable stopped_;
  std::optional<Error> error_;
  std::set<gateway::Generating*> generating_;  // order does not matter
};

}  // namespace chainpump::cli
