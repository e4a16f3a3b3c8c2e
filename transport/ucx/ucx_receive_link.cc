#include "transport/ucx/ucx_receive_link.h"

#include <cstring>

#include "base/check.h"
#include "transport/hello.h"
#include "transport/ucx/listener_core.h"

namespace chainpump::transport {
namespace {

class UcxReceivedFrame final : public ReceivedFrame {
 public:
  UcxReceivedFrame(std::shared_ptr<ReceiveShared> shared, const IncomingFrame& frame)
      : shared_(std::move(shared)), frame_(frame) {}
  ~UcxReceivedFrame() override {
    shared_->pool.put_back(frame_.slot);
    if (shared_->link != nullptr) shared_->link->release();
  }
  FrameKind kind() const override { return static_cast<FrameKind>(frame_.header.kind); }
  MicrobatchId microbatch() const override { return frame_.header.microbatch; }
  PlanEpoch epoch() const override { return frame_.header.epoch; }
  std::span<std::byte> metadata() const override {
    return shared_->pool.metadata(frame_.slot, frame_.header.metadata_bytes);
  }
  std::span<const std::byte> payload() const override {
    return shared_->pool.payload(frame_.slot).first(frame_.header.payload_bytes);
  }
  TimePoint received_at() const override { return frame_.received_at; }

 private:
  std::shared_ptr<ReceiveShared> shared_;
  IncomingFrame frame_;
};

}  // namespace

UcxReceiveLink::UcxReceiveLink(const LinkOptions& options, std::shared_ptr<ListenerCore> listener)
    : shared_(std::make_shared<ReceiveShared>(options, this)),
      core_(options, steady_clock()),
      end_(steady_clock(), options.edge, LinkState::connecting),
      listener_(std::move(listener)) {
  events_.add(listener_->event_fd());
}

Result<std::unique_ptr<UcxReceiveLink>> UcxReceiveLink::create(
    const LinkOptions& options, std::shared_ptr<ListenerCore> listener) {
  std::unique_ptr<UcxReceiveLink> link(new UcxReceiveLink(options, std::move(listener)));
  RETURN_IF_ERROR(link->listener_->add_waiting(link.get()));
  return link;
}

UcxReceiveLink::~UcxReceiveLink() {
  leave_listener();
  disconnect();
  shared_->link = nullptr;
}

void UcxReceiveLink::take_connection(std::unique_ptr<UcxConnection> connection) {
  connection_ = std::move(connection);
  connection_->set_sink(this);
  connection_->set_fault(options().fault);
  events_.add(connection_->event_fd());
  core_.stats().transport = connection_->transport();
  connection_->shut_doors();
  connection_->send_control(encode_hello_reply(options(), FrameField::none, core_.clock()));
  end_.opened();
}

std::unique_ptr<ReceivedFrame> UcxReceiveLink::try_receive() {
  if (end_.state() == LinkState::failed) return nullptr;
  const std::optional<IncomingFrame> frame = core_.take();
  if (!frame) return nullptr;
  return std::make_unique<UcxReceivedFrame>(shared_, *frame);
}

void UcxReceiveLink::release() {
  core_.release();
  if (connection_ && !end_.ended()) send(core_.credit_header(1));
}

void UcxReceiveLink::close() {
  if (end_.start_closing()) send(core_.close_header(WireKind::close));
}

bool UcxReceiveLink::progress() {
  if (end_.ended()) return false;
  bool any = false;
  if (!connection_) any = listener_->progress();
  if (connection_) {
    if (listener_) leave_listener();
    any |= connection_->progress();
    if (!refusal_.ok()) end_.fail(refusal_error(refusal_));
    if (core_.all_arrived() && !reply_sent_) {
      reply_sent_ = true;
      end_.start_closing();
      send(core_.close_header(WireKind::close_reply));
    }
    // The sender leaves when it has our reply, and then we may, once the user has all frames.
    if (core_.drained() && (connection_->dead() || end_.overdue())) end_.finish_closing();
    if (connection_->dead() && !core_.all_arrived()) end_.fail_peer_gone(connection_->death());
  }
  // Frames that wait for their user are no fault of the sender's.
  if (!core_.all_arrived()) end_.fail_if_overdue();
  if (!end_.ended()) return any;
  leave_listener();
  disconnect();
  return true;
}

bool UcxReceiveLink::arm() {
  if (end_.ended()) return true;
  if (!connection_) return listener_->arm();
  if (listener_) return false;
  if (connection_->dead() && !(core_.all_arrived() && !core_.drained())) return false;
  return connection_->arm();
}

bool UcxReceiveLink::refused(const FrameCheck& check) {
  if (check.ok()) return false;
  if (refusal_.ok()) refusal_ = check;
  return true;
}

void UcxReceiveLink::on_message(std::span<const std::byte> header,
                                std::span<const std::byte> body) {
  if (!refusal_.ok()) return;
  const FrameCheck check = core_.accept_header(header, body.size());
  if (refused(check)) return;
  if (check.header.kind == WireKind::close) {
    return core_.closing_after(check.header);
  }
  const FrameHeader& h = check.header;
  const std::optional<int32_t> slot = shared_->pool.take();
  CHECK_MSG(slot.has_value(), "a credit without a slot");
  const std::span<std::byte> place = shared_->pool.body(*slot, h.metadata_bytes, h.payload_bytes);
  if (!body.empty()) std::memcpy(place.data(), body.data(), body.size());
  core_.stats().payload_copies_bytes += h.payload_bytes;
  core_.begin(h, *slot);
  refused(core_.finish(h.sequence, shared_->pool));
}

std::span<std::byte> UcxReceiveLink::on_large(std::span<const std::byte> header, size_t body_bytes,
                                              uint64_t& sequence) {
  if (!refusal_.ok()) return {};
  FrameCheck check = core_.accept_header(header, body_bytes);
  if (check.ok() && check.header.kind == WireKind::close) {
    check.refused = FrameField::kind;
    check.got = static_cast<uint64_t>(WireKind::close);
  }
  if (refused(check)) return {};
  const FrameHeader& h = check.header;
  const std::optional<int32_t> slot = shared_->pool.take();
  CHECK_MSG(slot.has_value(), "a credit without a slot");
  core_.begin(h, *slot);
  sequence = h.sequence;
  return shared_->pool.body(*slot, h.metadata_bytes, h.payload_bytes);
}

void UcxReceiveLink::on_large_done(uint64_t sequence, bool ok) {
  if (ok) refused(core_.finish(sequence, shared_->pool));
}

void UcxReceiveLink::send(const FrameHeader& header) {
  FrameHeaderBytes bytes;
  encode_frame_header(header, bytes);
  connection_->send_control(bytes);
}

void UcxReceiveLink::leave_listener() {
  if (!listener_) return;
  listener_->remove_waiting(this);
  events_.remove(listener_->event_fd());
  listener_.reset();
}

void UcxReceiveLink::disconnect() {
  if (!connection_) return;
  events_.remove(connection_->event_fd());
  connection_.reset();
}

}  // namespace chainpump::transport
