// The wire of our RPC: messages whose segment table has been checked before the RPC library sees a
// byte, since the library trusts it, and further bounds for peers that need not be ours. Includes
// the RPC library's headers: for transport/rpc/ and gateway/rpc/ only. One thread, the one that
// runs the event loop.
#pragma once

#include <capnp/rpc-twoparty.h>
#include <capnp/serialize-async.h>
#include <kj/async-io.h>

#include <functional>
#include <string>

namespace chainpump::transport::rpc {

inline constexpr uint32_t kSegmentsMax = 512;
inline constexpr uint64_t kMessageWordsMax = (64u << 20) / sizeof(capnp::word);
/// A message that has begun must be complete after this.
inline constexpr kj::Duration kMessageDeadline = 10 * kj::SECONDS;
/// For what the library still has to write when it reads no more.
inline constexpr kj::Duration kLastWriteDeadline = 1 * kj::SECONDS;

struct MessageLimits {
  uint32_t segments_max = kSegmentsMax;
  uint64_t words_max = kMessageWordsMax;
  /// Calls of the peer that it has not released: their answers are kept for it. 0: any number.
  uint32_t unreleased_calls_max = 0;
  /// While more than this waits to be written to the peer, nothing is read from it; needs
  /// set_queued_bytes().
  size_t queued_bytes_max = 0;
};

class CheckedMessageStream final : public capnp::MessageStream {
 public:
  CheckedMessageStream(kj::AsyncIoStream& stream, kj::Timer& timer,
                       const MessageLimits& limits = {})
      : stream_(stream), inner_(stream), timer_(timer), limits_(limits) {}

  /// How many bytes the library has queued to be written here.
  void set_queued_bytes(std::function<size_t()> queued_bytes) {
    queued_bytes_ = std::move(queued_bytes);
  }

  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(
      kj::ArrayPtr<kj::AutoCloseFd> fd_space, capnp::ReaderOptions options,
      kj::ArrayPtr<capnp::word> scratch) override;
  kj::Promise<void> writeMessage(
      kj::ArrayPtr<const int> fds,
      kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(
      kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  kj::Maybe<int> getSendBufferSize() override { return inner_.getSendBufferSize(); }
  kj::Promise<void> end() override { return inner_.end(); }

  /// Why the peer's bytes were refused, or empty.
  const std::string& refusal() const { return refusal_; }
  /// Whether the peer ended the connection: between two messages, inside one, or by an abort.
  bool ended_by_peer() const { return ended_by_peer_; }
  /// Resolves when all that has been written so far is on its way. One waiter at a time.
  kj::Promise<void> flushed();
  /// Resolves when the conversation is over. The library says so only after its last write, which a
  /// peer that does not read holds up for ever: so it is over, too, when for a second the library
  /// has asked for no message and no write has ended. `network`, on this stream, may be destroyed
  /// then, in the middle of a write. One waiter at a time.
  kj::Promise<void> ended(capnp::TwoPartyVatNetwork& network);

 private:
  struct Incoming;
  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> read_message(capnp::ReaderOptions options);
  kj::Promise<void> stuck();
  kj::Promise<void> counted(kj::Promise<void> write);
  kj::Exception noted(kj::Exception&& exception);
  kj::Exception refuse(std::string why);
  kj::Promise<void> read_rest(Incoming& incoming);
  kj::Promise<size_t> read_some(void* buffer, size_t at_least, size_t at_most);
  kj::Promise<void> read_exactly(void* buffer, size_t num_bytes);
  kj::Promise<void> read_body(Incoming& incoming);
  void count_call(capnp::MessageReader& message);

  kj::AsyncIoStream& stream_;
  capnp::AsyncIoMessageStream inner_;
  kj::Timer& timer_;
  const MessageLimits limits_;
  std::function<size_t()> queued_bytes_;
  uint32_t num_unreleased_calls_ = 0;
  kj::Own<kj::PromiseFulfiller<void>> write_done_;  // whom the next write's end is told
  std::string refusal_;
  bool ended_by_peer_ = false;
  bool asked_ = false;                             // the library waits for a message
  kj::Own<kj::PromiseFulfiller<void>> read_done_;  // whom the next read's end is told
  int num_writes_ = 0;
  uint64_t num_done_ = 0;                     // reads and writes that have ended
  kj::Own<kj::PromiseFulfiller<void>> idle_;  // whom the last write's end is told
};

}  // namespace chainpump::transport::rpc
