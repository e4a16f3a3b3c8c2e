#include "transport/rpc/message_stream.h"

#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <fmt/format.h>

#include <vector>

namespace chainpump::transport::rpc {

// The stream format: uint32 number of segments - 1, one uint32 size in words per segment, padding
// to 8 bytes, then the segments.
struct CheckedMessageStream::Incoming {
  uint32_t head[2] = {0, 0};  // number of segments - 1, size of the first
  std::vector<uint32_t> more_sizes;
  kj::Array<capnp::word> words;
  kj::Array<kj::ArrayPtr<const capnp::word>> segments;

  uint32_t num_segments() const { return head[0] + 1; }
  uint32_t size_of(uint32_t segment) const {
    return segment == 0 ? head[1] : more_sizes[segment - 1];
  }
};

kj::Exception CheckedMessageStream::refuse(std::string why) {
  if (refusal_.empty()) refusal_ = why;
  return kj::Exception(kj::Exception::Type::DISCONNECTED, __FILE__, __LINE__,
                       kj::heapString(why.data(), why.size()));
}

// The library throws what it meets at once, and breaks the promise with what it meets later.
kj::Promise<size_t> CheckedMessageStream::read_some(void* buffer, size_t at_least, size_t at_most) {
  return kj::evalNow([&] { return stream_.tryRead(buffer, at_least, at_most); })
      .catch_([this](kj::Exception&& e) -> kj::Promise<size_t> { return noted(kj::mv(e)); });
}

kj::Promise<void> CheckedMessageStream::read_exactly(void* buffer, size_t num_bytes) {
  if (num_bytes == 0) return kj::READY_NOW;
  return read_some(buffer, num_bytes, num_bytes)
      .then([this, num_bytes](size_t got) -> kj::Promise<void> {
        if (got == num_bytes) return kj::READY_NOW;
        return noted(KJ_EXCEPTION(DISCONNECTED, "the connection ended inside a message"));
      });
}

kj::Promise<void> CheckedMessageStream::read_rest(Incoming& incoming) {
  const uint32_t num_segments = incoming.num_segments();
  if (num_segments == 0 || num_segments > limits_.segments_max)
    return refuse(fmt::format("refused a message of {} segments; the limit is {}",
                              uint64_t{incoming.head[0]} + 1, limits_.segments_max));
  // With the padding, the sizes after the first fill a whole number of words.
  incoming.more_sizes.resize(num_segments / 2 * 2);
  return read_exactly(incoming.more_sizes.data(), incoming.more_sizes.size() * sizeof(uint32_t))
      .then([this, &incoming] { return read_body(incoming); });
}

kj::Promise<void> CheckedMessageStream::read_body(Incoming& incoming) {
  const uint32_t num_segments = incoming.num_segments();
  uint64_t num_words = 0;
  for (uint32_t i = 0; i < num_segments; ++i) num_words += incoming.size_of(i);
  if (num_words > limits_.words_max)
    return refuse(fmt::format("refused a message of {} bytes; the limit is {}",
                              num_words * sizeof(capnp::word),
                              limits_.words_max * sizeof(capnp::word)));
  // Not initialised, so a lying size costs address space and no memory.
  incoming.words = kj::heapArray<capnp::word>(num_words);
  auto segments = kj::heapArrayBuilder<kj::ArrayPtr<const capnp::word>>(num_segments);
  size_t offset = 0;
  for (uint32_t i = 0; i < num_segments; ++i) {
    segments.add(incoming.words.slice(offset, offset + incoming.size_of(i)));
    offset += incoming.size_of(i);
  }
  incoming.segments = segments.finish();
  return read_exactly(incoming.words.begin(), num_words * sizeof(capnp::word));
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> CheckedMessageStream::tryReadMessage(
    kj::ArrayPtr<kj::AutoCloseFd>, capnp::ReaderOptions options, kj::ArrayPtr<capnp::word>) {
  asked_ = true;
  return kj::evalNow([&] { return read_message(options); }).attach(kj::defer([this] {
    asked_ = false;
    ++num_done_;
    if (read_done_.get() != nullptr) read_done_->fulfill();
  }));
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> CheckedMessageStream::read_message(
    capnp::ReaderOptions options) {
  if (queued_bytes_ && queued_bytes_() > limits_.queued_bytes_max) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    write_done_ = kj::mv(paf.fulfiller);
    return paf.promise.then([this, options] {
      // Last, so that the library has counted the write's end.
      return kj::evalLast([this, options] { return read_message(options); });
    });
  }
  auto owned = kj::heap<Incoming>();
  Incoming& incoming = *owned;
  using Message = kj::Maybe<capnp::MessageReaderAndFds>;
  return read_some(incoming.head, 1, sizeof(incoming.head))
      .then([this, &incoming, options,
             owned = kj::mv(owned)](size_t got) mutable -> kj::Promise<Message> {
        if (got == 0) {
          ended_by_peer_ = true;
          return Message(nullptr);
        }
        // From here on a message has begun, and what is missing has a deadline.
        auto complete =
            read_exactly(reinterpret_cast<char*>(incoming.head) + got, sizeof(incoming.head) - got)
                .then([this, &incoming] { return read_rest(incoming); });
        auto late = timer_.afterDelay(kMessageDeadline).then([this]() -> kj::Promise<void> {
          return refuse("a message was not complete after 10 s");
        });
        return complete.exclusiveJoin(kj::mv(late))
            .then([this, options, owned = kj::mv(owned)]() mutable -> Message {
              auto reader =
                  kj::heap<capnp::SegmentArrayMessageReader>(owned->segments.asPtr(), options);
              if (limits_.unreleased_calls_max > 0) count_call(*reader);
              // A client that takes its leave in words, as the library's do when they have time to.
              ended_by_peer_ |= reader->getRoot<capnp::rpc::Message>().isAbort();
              return capnp::MessageReaderAndFds{
                  kj::Own<capnp::MessageReader>(kj::mv(reader)).attach(kj::mv(owned)), nullptr};
            });
      });
}

// A Finish of no call is refused by the library, so that the count stays true.
void CheckedMessageStream::count_call(capnp::MessageReader& message) {
  switch (message.getRoot<capnp::rpc::Message>().which()) {
    case capnp::rpc::Message::BOOTSTRAP:
    case capnp::rpc::Message::CALL:
      if (++num_unreleased_calls_ > limits_.unreleased_calls_max)
        kj::throwFatalException(refuse(fmt::format(
            "refused a call beside {} that were not released", limits_.unreleased_calls_max)));
      return;
    case capnp::rpc::Message::FINISH:
      if (num_unreleased_calls_ > 0) --num_unreleased_calls_;
      return;
    default:
      return;
  }
}

// A peer that goes while we still write to it, or before it has read all, resets the connection.
kj::Exception CheckedMessageStream::noted(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) ended_by_peer_ = true;
  return kj::mv(exception);
}

kj::Promise<void> CheckedMessageStream::counted(kj::Promise<void> write) {
  ++num_writes_;
  auto watched =
      write.catch_([this](kj::Exception&& e) -> kj::Promise<void> { return noted(kj::mv(e)); });
  return watched.attach(kj::defer([this] {
    ++num_done_;
    if (--num_writes_ == 0 && idle_.get() != nullptr) idle_->fulfill();
    if (write_done_.get() != nullptr) write_done_->fulfill();
  }));
}

// The library begins a write in a later turn of the loop, also after another: hence evalLast.
kj::Promise<void> CheckedMessageStream::flushed() {
  return kj::evalLast([this]() -> kj::Promise<void> {
    if (num_writes_ == 0) return kj::READY_NOW;
    auto paf = kj::newPromiseAndFulfiller<void>();
    idle_ = kj::mv(paf.fulfiller);
    return paf.promise.then([this] { return flushed(); });
  });
}

kj::Promise<void> CheckedMessageStream::ended(capnp::TwoPartyVatNetwork& network) {
  return network.onDisconnect().exclusiveJoin(stuck());
}

// The library asks again as soon as it has seen to a message, unless more calls are under way than
// its flow limit allows: then there need be no write.
kj::Promise<void> CheckedMessageStream::stuck() {
  if (asked_) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    read_done_ = kj::mv(paf.fulfiller);
    return paf.promise.then([this] { return stuck(); });
  }
  return timer_.afterDelay(kLastWriteDeadline)
      .then([this, done_before = num_done_]() -> kj::Promise<void> {
        if (!asked_ && num_writes_ > 0 && num_done_ == done_before) return kj::READY_NOW;
        return stuck();
      });
}

kj::Promise<void> CheckedMessageStream::writeMessage(
    kj::ArrayPtr<const int> fds, kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  return counted(kj::evalNow([&] { return inner_.writeMessage(fds, segments); }));
}

kj::Promise<void> CheckedMessageStream::writeMessages(
    kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) {
  return counted(kj::evalNow([&] { return inner_.writeMessages(messages); }));
}

}  // namespace chainpump::transport::rpc
