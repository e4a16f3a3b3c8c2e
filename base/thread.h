// Starting a thread, which the system may refuse: limits of processes and of memory are the
// world's, not bugs. std::thread throws there. Any thread.
#pragma once

#include <functional>
#include <string_view>
#include <system_error>
#include <thread>

#include "base/result.h"

namespace chainpump {

/// What a refused thread is to whoever asked for it: no_room. `purpose` says what it was for, e.g.
/// "the RPC thread".
Error thread_error(std::string_view purpose, const std::system_error& refusal);

/// Runs `main` in a new thread, which must be joined; or no_room.
Result<std::thread> start_thread(std::string_view purpose, std::function<void()> main);

}  // namespace chainpump
