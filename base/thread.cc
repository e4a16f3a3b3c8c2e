#include "base/thread.h"

#include <utility>

namespace chainpump {

Error thread_error(std::string_view purpose, const std::system_error& refusal) {
  return make_error(ErrorCode::no_room,
                    "cannot start {}: {} (limits: ulimit -u, ulimit -v, and the container's)",
                    purpose, refusal.code().message());
}

Result<std::thread> start_thread(std::string_view purpose, std::function<void()> main) {
  try {
    return std::thread(std::move(main));
  } catch (const std::system_error& refusal) {
    return thread_error(purpose, refusal);
  }
}

}  // namespace chainpump
