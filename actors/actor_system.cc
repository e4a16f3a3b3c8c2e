#include "actors/actor_system.h"

#include <future>
#include <thread>
#include <vector>

namespace chainpump::actors {
namespace {

constexpr int kNumThreads = 2;  // that the system starts for itself

/// Whether the system has room for that many threads at once.
Status try_threads() {
  std::promise<void> done;
  const std::shared_future<void> wait = done.get_future().share();
  std::vector<std::thread> threads;
  Status tried = ok_status();
  while (tried.ok() && threads.size() < kNumThreads) {
    Result<std::thread> thread = start_thread("the threads of the actors", [wait] { wait.wait(); });
    if (thread.ok())
      threads.push_back(*std::move(thread));
    else
      tried = std::move(thread).error();
  }
  done.set_value();
  for (std::thread& thread : threads) thread.join();
  return tried;
}

}  // namespace

Result<ActorSystem> ActorSystem::create() {
  // Inside CAF a refusal cannot be answered: of the first thread, what the constructor has built
  // crashes as it is undone; of the second, the first still runs. So whether there is room for both
  // is tried before; what remains is the moment in between.
  RETURN_IF_ERROR(try_threads());
  return ActorSystem(std::make_unique<Parts>());
}

}  // namespace chainpump::actors
