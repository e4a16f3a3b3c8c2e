// What both sides of control share: tasks posted into an event loop from any thread, and errors
// across the wall. Includes the RPC library's headers: for transport/rpc/ and gateway/rpc/ only.
#pragma once

#include <kj/async-io.h>
#include <kj/exception.h>

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::transport::rpc {

/// `[code] message`, as errors cross the wall (control.capnp, chainpump.capnp).
std::string to_text(const Error& error);
/// The other way; without that form, `fallback` with the whole text.
Error from_text(std::string_view text, ErrorCode fallback);
/// Our error as the exception that carries it to the peer.
kj::Exception to_exception(const Error& error);
/// The other way; an exception without that form is the library's or the connection's.
Error to_error(const kj::Exception& exception);

/// A duration for the library's timer, bounded so that no sum overflows.
kj::Duration to_kj(Duration duration);

/// An event loop for this thread; no_room if the system refuses the descriptors that it needs.
Result<kj::AsyncIoContext> make_loop();

class Inbox {
 public:
  using Task = std::function<void()>;

  /// Runs `task` in the loop, in the order posted. Any thread. After close() it is destroyed at
  /// once, unrun, in the calling thread, and false returned.
  bool post(Task task);

  // The loop's thread only:
  /// Runs tasks for ever; to be joined with what ends the loop.
  kj::Promise<void> run();
  /// Takes no more; destroys what was not run.
  void close();

 private:
  std::mutex mutex_;
  std::vector<Task> tasks_;
  kj::Own<kj::CrossThreadPromiseFulfiller<void>> wake_;
  bool sleeping_ = false;
  bool closed_ = false;
};

}  // namespace chainpump::transport::rpc
