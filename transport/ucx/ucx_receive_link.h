// The receiving end of a UCX link. Made by UcxListener::accept(); while it is connecting it moves
// the listener along, which hands it the connection whose hello is right. One thread, the
// listener's.
#pragma once

#include <memory>

#include "transport/end_state.h"
#include "transport/link.h"
#include "transport/link_core.h"
#include "transport/ucx/link_epoll.h"
#include "transport/ucx/ucx_connection.h"

namespace chainpump::transport {

class ListenerCore;
class UcxReceiveLink;

/// What frames need after their link is gone: `link` is null then.
struct ReceiveShared {
  ReceiveShared(const LinkOptions& options, UcxReceiveLink* link_of)
      : pool(options.credits, options.slot_metadata_bytes, options.slot_payload_bytes),
        link(link_of) {}
  SlotPool pool;
  UcxReceiveLink* link;
};

class UcxReceiveLink final : public ReceiveLink, private MessageSink {
 public:
  /// Errors as of ListenerCore::add_waiting().
  static Result<std::unique_ptr<UcxReceiveLink>> create(const LinkOptions& options,
                                                        std::shared_ptr<ListenerCore> listener);
  ~UcxReceiveLink() override;

  LinkState state() const override { return end_.state(); }
  const Error& error() const override { return end_.error(); }
  std::unique_ptr<ReceivedFrame> try_receive() override;
  void close() override;
  bool progress() override;
  int event_fd() const override { return events_.fd(); }
  bool arm() override;
  LinkStats stats() const override { return core_.report(); }

  const LinkOptions& options() const { return core_.options(); }
  /// The listener found this link's sender; its hello was right and is answered here.
  void take_connection(std::unique_ptr<UcxConnection> connection);
  /// A frame was let go.
  void release();

 private:
  UcxReceiveLink(const LinkOptions& options, std::shared_ptr<ListenerCore> listener);
  void on_message(std::span<const std::byte> header, std::span<const std::byte> body) override;
  std::span<std::byte> on_large(std::span<const std::byte> header, size_t body_bytes,
                                uint64_t& sequence) override;
  void on_large_done(uint64_t sequence, bool ok) override;
  void on_sent(int32_t) override {}

  bool refused(const FrameCheck& check);
  void send(const FrameHeader& header);
  void leave_listener();
  void disconnect();

  // The connection goes first: UCX may touch slots and this sink until then.
  std::shared_ptr<ReceiveShared> shared_;
  ReceiveCore core_;
  EndState end_;
  LinkEpoll events_;
  FrameCheck refusal_;  // found inside a callback, acted upon outside
  bool reply_sent_ = false;
  std::shared_ptr<ListenerCore> listener_;  // while connecting
  std::unique_ptr<UcxConnection> connection_;
};

}  // namespace chainpump::transport
