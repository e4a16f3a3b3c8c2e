#include "transport/ucx/ucx_send_link.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <vector>

#include "base/check.h"
#include "transport/end_state.h"
#include "transport/hello.h"
#include "transport/link_core.h"
#include "transport/ucx/link_epoll.h"
#include "transport/ucx/ucx_connection.h"

namespace chainpump::transport {
namespace {

constexpr size_t kInboxBytesMax = 128;  // a control message is a header and at most one byte
constexpr size_t kInboxMessagesMax =
    4096;  // more without a progress() between is not a link of ours

/// What slots need after their link is gone.
struct SendShared {
  SendShared(const LinkOptions& options, const Clock& clock)
      : pool(options.credits, options.slot_metadata_bytes, options.slot_payload_bytes),
        core(options, clock) {}
  SlotPool pool;
  SendCore core;
};

class UcxSendSlot final : public SendSlot {
 public:
  UcxSendSlot(std::shared_ptr<SendShared> shared, int32_t slot)
      : shared_(std::move(shared)), slot_(slot) {}
  ~UcxSendSlot() override {
    if (slot_ < 0) return;
    shared_->pool.put_back(slot_);
    shared_->core.give_back();
  }
  std::span<std::byte> payload() override { return shared_->pool.payload(slot_); }
  int32_t slot() const { return slot_; }
  bool belongs_to(const std::shared_ptr<SendShared>& shared) const { return shared_ == shared; }
  void sent() { slot_ = -1; }

 private:
  std::shared_ptr<SendShared> shared_;
  int32_t slot_;
};

class UcxSendLink final : public SendLink, private MessageSink {
 public:
  UcxSendLink(const LinkOptions& options, std::unique_ptr<UcxConnection> connection)
      : shared_(std::make_shared<SendShared>(options, steady_clock())),
        end_(steady_clock(), options.edge, LinkState::connecting),
        connection_(std::move(connection)) {
    connection_->set_sink(this);
    connection_->set_fault(options.fault);
    events_.add(connection_->event_fd());
    connection_->send_control(encode_hello(options, steady_clock()));
  }
  ~UcxSendLink() override { disconnect(); }

  LinkState state() const override { return end_.state(); }
  const Error& error() const override { return end_.error(); }

  std::unique_ptr<SendSlot> try_acquire() override {
    // A returned credit may overtake UCX's own notice that the slot is out.
    if (end_.state() != LinkState::open || shared_->pool.num_free() == 0) return nullptr;
    if (!shared_->core.acquire()) return nullptr;
    return std::make_unique<UcxSendSlot>(shared_, *shared_->pool.take());
  }

  Status send(std::unique_ptr<SendSlot> base, FrameKind kind, MicrobatchId microbatch,
              std::span<const std::byte> metadata, int64_t payload_bytes) override;
  void close() override {
    if (!end_.start_closing()) return;
    FrameHeaderBytes header;
    encode_frame_header(shared_->core.close_header(), header);
    connection_->send_control(header);
  }

  bool progress() override;
  int event_fd() const override { return events_.fd(); }
  bool arm() override { return !connection_ || (inbox_.empty() && connection_->arm()); }
  LinkStats stats() const override { return shared_->core.report(); }

 private:
  void on_message(std::span<const std::byte> header, std::span<const std::byte> body) override {
    if (header.size() + body.size() > kInboxBytesMax || inbox_.size() >= kInboxMessagesMax ||
        header.size() != kFrameHeaderBytes) {
      flooded_ = true;
      return;
    }
    std::vector<std::byte>& message = inbox_.emplace_back(header.begin(), header.end());
    message.insert(message.end(), body.begin(), body.end());
  }
  std::span<std::byte> on_large(std::span<const std::byte>, size_t, uint64_t&) override {
    flooded_ = true;
    return {};
  }
  void on_large_done(uint64_t, bool) override {}
  void on_sent(int32_t slot) override { shared_->pool.put_back(slot); }

  void accept(std::span<const std::byte> message);
  void disconnect();

  // The connection goes first: UCX may touch slots and this sink until then.
  std::shared_ptr<SendShared> shared_;
  EndState end_;
  LinkEpoll events_;
  std::deque<std::vector<std::byte>> inbox_;
  bool flooded_ = false;
  std::unique_ptr<UcxConnection> connection_;
};

Status UcxSendLink::send(std::unique_ptr<SendSlot> base, FrameKind kind, MicrobatchId microbatch,
                         std::span<const std::byte> metadata, int64_t payload_bytes) {
  auto* slot = dynamic_cast<UcxSendSlot*>(base.get());
  CHECK_MSG(slot != nullptr && slot->belongs_to(shared_), "a slot of another link");
  SendCore& core = shared_->core;
  CHECK_LE(static_cast<int64_t>(metadata.size()), core.options().slot_metadata_bytes);
  CHECK_GE(payload_bytes, 0);
  CHECK_LE(payload_bytes, core.options().slot_payload_bytes);
  if (end_.state() == LinkState::open) {
    const FrameHeader h = core.stamp(shared_->pool, slot->slot(), kind, microbatch, metadata,
                                     static_cast<uint32_t>(payload_bytes));
    const int32_t index = slot->slot();
    slot->sent();
    if (connection_->send_frame(shared_->pool.header(index, h.metadata_bytes),
                                shared_->pool.body(index, h.metadata_bytes, h.payload_bytes),
                                index)) {
      return ok_status();
    }
  }
  return make_error(ErrorCode::disconnected, "edge {}: the link is not open", core.options().edge);
}

bool UcxSendLink::progress() {
  if (end_.ended()) return false;
  bool any = connection_->progress();
  while (!inbox_.empty() && !end_.ended()) {
    any = true;
    accept(inbox_.front());
    inbox_.pop_front();
  }
  if (flooded_) {
    end_.fail(make_error(ErrorCode::invalid_argument,
                         "edge {}: the receiver sends what is no reply",
                         shared_->core.options().edge));
  }
  if (connection_->dead()) end_.fail_peer_gone(connection_->death());
  end_.fail_if_overdue();
  if (!end_.ended()) return any;
  disconnect();
  return true;
}

void UcxSendLink::accept(std::span<const std::byte> message) {
  const std::span<const std::byte> header = message.first(kFrameHeaderBytes);
  const std::span<const std::byte> body = message.subspan(kFrameHeaderBytes);
  if (end_.state() == LinkState::connecting) {
    const Status accepted = check_hello_reply(shared_->core.options(), header, body);
    if (!accepted.ok()) return end_.fail(accepted.error());
    shared_->core.stats().transport = connection_->transport();
    connection_->shut_doors();
    return end_.opened();
  }
  const FrameCheck check = shared_->core.accept_control(header);
  if (!check.ok()) return end_.fail(refusal_error(check));
  if (check.header.kind == WireKind::close) close();
  if (check.header.kind == WireKind::close_reply) end_.finish_closing();
}

void UcxSendLink::disconnect() {
  if (!connection_) return;
  events_.remove(connection_->event_fd());
  connection_.reset();
}

}  // namespace

Result<std::unique_ptr<SendLink>> ucx_connect(std::shared_ptr<UcxContext> context,
                                              const std::string& address,
                                              const LinkOptions& options) {
  RETURN_IF_ERROR(check_link_options(options));
  ASSIGN_OR_RETURN(const SocketAddress parsed, parse_socket_address(address));
  ASSIGN_OR_RETURN(auto connection,
                   UcxConnection::connect(std::move(context), parsed, options.credits));
  return std::unique_ptr<SendLink>(std::make_unique<UcxSendLink>(options, std::move(connection)));
}

}  // namespace chainpump::transport
