#include "transport/loopback.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <vector>

#include "base/check.h"
#include "base/unique_fd.h"
#include "transport/end_state.h"
#include "transport/hello.h"
#include "transport/link_core.h"

namespace chainpump::transport {
namespace {

struct Message {
  int32_t slot = -1;  // < 0: no body
  uint64_t body_bytes = 0;
  FrameHeaderBytes header;
};

/// Messages one way, and the event that says so.
class Mailbox {
 public:
  Mailbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { CHECK(event_.valid()); }

  void push(const Message& message) {
    {
      const std::lock_guard lock(mutex_);
      messages_.push_back(message);
    }
    signal();
  }
  /// The other end is gone without a close.
  void hang_up() {
    {
      const std::lock_guard lock(mutex_);
      hung_up_ = true;
    }
    signal();
  }
  /// Moves everything that arrived to `out`; returns whether the other end hung up.
  bool drain(std::deque<Message>& out) {
    uint64_t count;
    const std::lock_guard lock(mutex_);
    if (messages_.empty() && !hung_up_) return false;
    while (read(event_.get(), &count, sizeof count) > 0) {
    }
    out.insert(out.end(), messages_.begin(), messages_.end());
    messages_.clear();
    return hung_up_;
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return messages_.empty() && !hung_up_;
  }
  int event_fd() const { return event_.get(); }

 private:
  void signal() {
    const uint64_t one = 1;
    CHECK_EQ(write(event_.get(), &one, sizeof one), ssize_t{sizeof one});
  }

  std::mutex mutex_;
  std::deque<Message> messages_;
  bool hung_up_ = false;
  UniqueFd event_;
};

/// What both ends share. Frames and slots that outlive their link keep it alive.
class Shared {
 public:
  Shared(const LinkOptions& options, std::function<void(std::span<std::byte>)> hook)
      : on_wire(std::move(hook)),
        pool(options.credits, options.slot_metadata_bytes, options.slot_payload_bytes) {}

  std::optional<int32_t> take_slot() {
    const std::lock_guard lock(mutex_);
    return pool.take();
  }
  void put_back(int32_t slot) {
    const std::lock_guard lock(mutex_);
    pool.put_back(slot);
  }

  Mailbox to_receiver;
  Mailbox to_sender;
  std::function<void(std::span<std::byte>)> on_wire;
  SlotPool pool;  // taking and putting back under mutex_; a slot's bytes belong to its holder

 private:
  std::mutex mutex_;
};

FrameHeaderBytes encoded(const FrameHeader& header) {
  FrameHeaderBytes bytes;
  encode_frame_header(header, bytes);
  return bytes;
}

class LoopbackSendSlot final : public SendSlot {
 public:
  LoopbackSendSlot(std::shared_ptr<Shared> shared, std::weak_ptr<SendCore> core, int32_t slot)
      : shared_(std::move(shared)), core_(std::move(core)), slot_(slot) {}
  ~LoopbackSendSlot() override {
    if (slot_ < 0) return;
    shared_->put_back(slot_);
    if (const auto core = core_.lock()) core->give_back();
  }
  std::span<std::byte> payload() override { return shared_->pool.payload(slot_); }
  int32_t slot() const { return slot_; }
  bool belongs_to(const std::shared_ptr<SendCore>& core) const { return core_.lock() == core; }
  void sent() { slot_ = -1; }

 private:
  std::shared_ptr<Shared> shared_;
  std::weak_ptr<SendCore> core_;
  int32_t slot_;
};

class LoopbackSendLink final : public SendLink {
 public:
  LoopbackSendLink(std::shared_ptr<Shared> shared, const LinkOptions& options)
      : shared_(std::move(shared)),
        core_(std::make_shared<SendCore>(options, steady_clock())),
        end_(steady_clock(), options.edge, LinkState::open) {
    core_->stats().transport = "loopback";
  }
  ~LoopbackSendLink() override {
    if (!end_.ended()) shared_->to_receiver.hang_up();
  }

  LinkState state() const override { return end_.state(); }
  const Error& error() const override { return end_.error(); }
  void fail(Error error) { end_.fail(std::move(error)); }

  std::unique_ptr<SendSlot> try_acquire() override {
    if (end_.state() != LinkState::open || !core_->acquire()) return nullptr;
    const std::optional<int32_t> slot = shared_->take_slot();
    CHECK_MSG(slot.has_value(), "a credit without a slot");
    return std::make_unique<LoopbackSendSlot>(shared_, core_, *slot);
  }

  Status send(std::unique_ptr<SendSlot> base, FrameKind kind, MicrobatchId microbatch,
              std::span<const std::byte> metadata, int64_t payload_bytes) override {
    auto* slot = dynamic_cast<LoopbackSendSlot*>(base.get());
    CHECK_MSG(slot != nullptr && slot->belongs_to(core_), "a slot of another link");
    CHECK_LE(static_cast<int64_t>(metadata.size()), core_->options().slot_metadata_bytes);
    CHECK_GE(payload_bytes, 0);
    CHECK_LE(payload_bytes, core_->options().slot_payload_bytes);
    if (end_.state() != LinkState::open) {
      return make_error(ErrorCode::disconnected, "edge {}: the link is not open",
                        core_->options().edge);
    }
    const FrameHeader h = core_->stamp(shared_->pool, slot->slot(), kind, microbatch, metadata,
                                       static_cast<uint32_t>(payload_bytes));
    const auto header = shared_->pool.header(slot->slot(), h.metadata_bytes);
    if (shared_->on_wire) {
      shared_->on_wire({header.data(), kFrameHeaderBytes + h.metadata_bytes + h.payload_bytes});
    }
    Message message{slot->slot(), h.metadata_bytes + uint64_t{h.payload_bytes}, {}};
    std::copy(header.begin(), header.end(), message.header.begin());
    slot->sent();
    shared_->to_receiver.push(message);
    return ok_status();
  }

  void close() override {
    if (!end_.start_closing()) return;
    Message message{-1, 0, encoded(core_->close_header())};
    if (shared_->on_wire) shared_->on_wire(message.header);
    shared_->to_receiver.push(message);
  }

  bool progress() override {
    if (end_.ended()) return false;
    const bool hung_up = shared_->to_sender.drain(inbox_);
    bool any = !inbox_.empty() || hung_up;
    for (; !inbox_.empty() && !end_.ended(); inbox_.pop_front()) {
      const FrameCheck check = core_->accept_control(inbox_.front().header);
      if (!check.ok()) {
        end_.fail(refusal_error(check));
        shared_->to_receiver.hang_up();
      } else if (check.header.kind == WireKind::close) {
        close();
      } else if (check.header.kind == WireKind::close_reply) {
        end_.finish_closing();
      }
    }
    if (hung_up) end_.fail_peer_gone("it was destroyed");
    return end_.fail_if_overdue() || any;
  }
  int event_fd() const override { return shared_->to_sender.event_fd(); }
  bool arm() override { return end_.ended() || shared_->to_sender.empty(); }
  LinkStats stats() const override { return core_->report(); }

 private:
  std::shared_ptr<Shared> shared_;
  std::shared_ptr<SendCore> core_;
  EndState end_;
  std::deque<Message> inbox_;
};

class LoopbackReceiveLink;

/// What the receive link and its frames share; `link` is null once the link is gone.
struct FrameHome {
  std::shared_ptr<Shared> shared;
  LoopbackReceiveLink* link = nullptr;
};

class LoopbackReceivedFrame final : public ReceivedFrame {
 public:
  LoopbackReceivedFrame(std::shared_ptr<FrameHome> home, const IncomingFrame& frame)
      : home_(std::move(home)), frame_(frame) {}
  ~LoopbackReceivedFrame() override;
  FrameKind kind() const override { return static_cast<FrameKind>(frame_.header.kind); }
  MicrobatchId microbatch() const override { return frame_.header.microbatch; }
  PlanEpoch epoch() const override { return frame_.header.epoch; }
  std::span<std::byte> metadata() const override {
    return home_->shared->pool.metadata(frame_.slot, frame_.header.metadata_bytes);
  }
  std::span<const std::byte> payload() const override {
    return home_->shared->pool.payload(frame_.slot).first(frame_.header.payload_bytes);
  }
  TimePoint received_at() const override { return frame_.received_at; }

 private:
  std::shared_ptr<FrameHome> home_;
  IncomingFrame frame_;
};

class LoopbackReceiveLink final : public ReceiveLink {
 public:
  LoopbackReceiveLink(std::shared_ptr<Shared> shared, const LinkOptions& options)
      : shared_(std::move(shared)),
        home_(std::make_shared<FrameHome>(FrameHome{shared_, this})),
        core_(options, steady_clock()),
        end_(steady_clock(), options.edge, LinkState::open) {
    core_.stats().transport = "loopback";
  }
  ~LoopbackReceiveLink() override {
    home_->link = nullptr;
    if (!end_.ended()) shared_->to_sender.hang_up();
  }

  LinkState state() const override { return end_.state(); }
  const Error& error() const override { return end_.error(); }
  void fail(Error error) { end_.fail(std::move(error)); }

  std::unique_ptr<ReceivedFrame> try_receive() override {
    if (end_.state() == LinkState::failed) return nullptr;
    const std::optional<IncomingFrame> frame = core_.take();
    if (!frame) return nullptr;
    auto received = std::make_unique<LoopbackReceivedFrame>(home_, *frame);
    if (core_.drained()) end_.finish_closing();
    return received;
  }

  void release() {
    core_.release();
    if (!end_.ended()) shared_->to_sender.push(Message{-1, 0, encoded(core_.credit_header(1))});
  }

  void close() override {
    if (!end_.start_closing()) return;
    shared_->to_sender.push(Message{-1, 0, encoded(core_.close_header(WireKind::close))});
  }

  bool progress() override {
    if (end_.ended()) return false;
    const bool hung_up = shared_->to_receiver.drain(inbox_);
    const bool any = !inbox_.empty() || hung_up;
    for (; !inbox_.empty() && end_.state() != LinkState::failed; inbox_.pop_front()) {
      accept(inbox_.front());
    }
    if (hung_up && !close_received_) end_.fail_peer_gone("it was destroyed");
    return (!close_received_ && end_.fail_if_overdue()) || any;
  }
  int event_fd() const override { return shared_->to_receiver.event_fd(); }
  bool arm() override { return end_.ended() || shared_->to_receiver.empty(); }
  LinkStats stats() const override { return core_.report(); }

 private:
  void accept(const Message& message) {
    FrameCheck check = core_.accept_header(message.header, message.body_bytes);
    if (check.ok() && check.header.kind == WireKind::close) {
      core_.closing_after(check.header);
      close_received_ = true;
      shared_->to_sender.push(Message{-1, 0, encoded(core_.close_header(WireKind::close_reply))});
      end_.start_closing();
      if (core_.drained()) end_.finish_closing();
      return;
    }
    if (check.ok()) {
      core_.begin(check.header, message.slot);
      check = core_.finish(check.header.sequence, shared_->pool);
    }
    if (!check.ok()) {
      end_.fail(refusal_error(check));
      shared_->to_sender.hang_up();
    }
  }

  std::shared_ptr<Shared> shared_;
  std::shared_ptr<FrameHome> home_;
  ReceiveCore core_;
  EndState end_;
  std::deque<Message> inbox_;
  bool close_received_ = false;
};

LoopbackReceivedFrame::~LoopbackReceivedFrame() {
  home_->shared->put_back(frame_.slot);
  if (home_->link != nullptr) home_->link->release();
}

}  // namespace

LinkPair make_loopback_pair(const LinkOptions& options) {
  return make_loopback_pair(LoopbackTestOptions{options, options, {}});
}

LinkPair make_loopback_pair(const LoopbackTestOptions& options) {
  for (const LinkOptions* end : {&options.sender, &options.receiver}) {
    const Status valid = check_link_options(*end);
    CHECK_MSG(valid.ok(), "{}", valid.error().message);
  }
  auto shared = std::make_shared<Shared>(options.receiver, options.on_wire);
  auto sender = std::make_unique<LoopbackSendLink>(shared, options.sender);
  auto receiver = std::make_unique<LoopbackReceiveLink>(shared, options.receiver);

  std::vector<std::byte> hello = encode_hello(options.sender, steady_clock());
  if (options.on_wire) options.on_wire(hello);
  const std::span<const std::byte> message(hello);
  const FrameField refused = check_hello(options.receiver, message.first(kFrameHeaderBytes),
                                         message.subspan(kFrameHeaderBytes));
  const std::vector<std::byte> reply =
      encode_hello_reply(options.receiver, refused, steady_clock());
  const std::span<const std::byte> answer(reply);
  const Status accepted = check_hello_reply(options.sender, answer.first(kFrameHeaderBytes),
                                            answer.subspan(kFrameHeaderBytes));
  if (!accepted.ok()) {
    sender->fail(accepted.error());
    receiver->fail(make_error(ErrorCode::invalid_argument, "edge {}: hello refused: {}",
                              options.receiver.edge, to_string(refused)));
  }
  return {std::move(sender), std::move(receiver)};
}

}  // namespace chainpump::transport
