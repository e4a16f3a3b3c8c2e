// What the harnesses of both RPC schemas share: an input is a byte that picks a struct, and what a
// peer sends; it is read as a connection reads it. What can be read must be the same once it has
// been written and read again. One thread.
#pragma once

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/async-io.h>
#include <kj/timer.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/check.h"
#include "transport/rpc/message_stream.h"

namespace chainpump::fuzz {

/// Calls `use` with the message that the bytes hold, if it is not refused before.
template <typename Use>
void with_message(std::span<const uint8_t> bytes, uint64_t bytes_max, Use&& use) {
  static kj::EventLoop loop;
  static kj::WaitScope scope(loop);
  static kj::TimerImpl timer(kj::origin<kj::TimePoint>());
  kj::TwoWayPipe pipe = kj::newTwoWayPipe();
  transport::rpc::MessageLimits limits;
  limits.words_max = bytes_max / sizeof(capnp::word);
  limits.unreleased_calls_max = 1;
  transport::rpc::CheckedMessageStream stream(*pipe.ends[0], timer, limits);
  auto sent =
      pipe.ends[1]->write(bytes.data(), bytes.size()).then([&] { pipe.ends[1]->shutdownWrite(); });
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 4 * limits.words_max;
  // The library's exceptions end here, as in a call.
  (void)kj::runCatchingExceptions([&] {
    kj::Maybe<capnp::MessageReaderAndFds> message =
        stream.tryReadMessage(nullptr, options, nullptr).wait(scope);
    KJ_IF_MAYBE (got, message) use(*got->reader);
  });
}

/// `read`: what a reader of Schema says; `write`: the other way.
template <typename Schema, typename Read, typename Write>
void check_same_again(capnp::MessageReader& message, Read&& read, Write&& write) {
  const auto first = read(message.getRoot<Schema>());
  capnp::MallocMessageBuilder once;
  write(once.initRoot<Schema>(), first);
  const auto second = read(once.getRoot<Schema>().asReader());
  capnp::MallocMessageBuilder again;
  write(again.initRoot<Schema>(), second);
  const kj::Array<capnp::word> a = capnp::messageToFlatArray(once);
  const kj::Array<capnp::word> b = capnp::messageToFlatArray(again);
  CHECK_EQ(a.size(), b.size());
  CHECK(std::memcmp(a.begin(), b.begin(), a.asBytes().size()) == 0);
}

}  // namespace chainpump::fuzz
