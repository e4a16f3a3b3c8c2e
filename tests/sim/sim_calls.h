// Calls of the control plane in virtual time. A call reaches its callee after a while, and the
// answer comes back after another. While faults go on, some are lost on the way there, some answers
// are lost though the callee has acted, and some come seconds late. Of what is lost the caller is
// told that the connection broke, or nothing at all: then its own deadline tells it. A callee that
// dies breaks what it has not answered.
//
// One thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "base/result.h"
#include "tests/sim/sim_world.h"

namespace chainpump::sim {

template <typename Answer>
using Reply = std::function<void(Result<Answer>)>;

/// Whoever can be called: it may have died, or be stopped.
class Callee {
 public:
  virtual ~Callee() = default;
  virtual bool is_alive() const = 0;
  /// Now, or when it goes on; never if it has died by then.
  virtual void when_awake(std::function<void()> what) = 0;
  virtual ProcessId id() const = 0;

  uint64_t add_call(std::function<void()> broken) {
    calls_.emplace(++last_call_, std::move(broken));
    return last_call_;
  }
  void end_call(uint64_t call) { calls_.erase(call); }

 protected:
  void break_calls() {
    for (auto& [call, broken] : std::exchange(calls_, {})) broken();
  }

 private:
  uint64_t last_call_ = 0;
  std::map<uint64_t, std::function<void()>> calls_;
};

struct CallOptions {
  Duration delay{0};  // one way
  int fault_in = 0;   // one in so many is lost or late; 0: it is reliable
};

template <typename Answer>
void call(SimWorld& world, const CallOptions& options, Callee& callee,
          std::function<void(Reply<Answer>)> what, Reply<Answer> reply) {
  enum class Fate { well, request_lost, answer_lost, answer_late };
  Fate fate = Fate::well;
  if (options.fault_in > 0 && world.faulty && world.random.chance(options.fault_in)) {
    fate = static_cast<Fate>(1 + world.random.pick(3));
    ++world.calls_lost;
    world.touch(callee.id());
    world.say("process {}: {}", callee.id(),
              fate == Fate::request_lost  ? "the next call is lost"
              : fate == Fate::answer_lost ? "the answer of the next call is lost"
                                          : "the answer of the next call is late");
  }
  const bool told = world.random.chance(2);  // that it is lost
  const auto answer = [&world, reply = std::move(reply), done = std::make_shared<bool>(false)](
                          Duration delay, Result<Answer> result) {
    world.after(delay, [reply, done, result = std::move(result)]() mutable {
      if (!std::exchange(*done, true)) reply(std::move(result));
    });
  };
  const auto lose = [answer, told, delay = options.delay] {
    if (told) answer(delay, make_error(ErrorCode::disconnected, "the connection broke"));
  };
  const Duration there = options.delay + world.random.up_to(options.delay / 4);
  world.after(there, [&world, &callee, fate, delay = options.delay, answer, lose,
                      what = std::move(what)] {
    if (!callee.is_alive())
      return answer(delay, make_error(ErrorCode::disconnected, "nobody listens there"));
    if (fate == Fate::request_lost) return lose();
    const uint64_t number = callee.add_call(
        [answer, delay] { answer(delay, make_error(ErrorCode::disconnected, "it died")); });
    callee.when_awake([&world, &callee, fate, delay, answer, lose, number, what] {
      what([&world, &callee, fate, delay, answer, lose, number](Result<Answer> result) {
        callee.end_call(number);
        if (fate == Fate::answer_lost) return lose();
        const Duration late =
            fate == Fate::answer_late ? world.random.up_to(std::chrono::seconds(6)) : Duration(0);
        world.disturb_for(late);
        answer(delay + late, std::move(result));
      });
    });
  });
}

}  // namespace chainpump::sim
