// One UCX worker with one endpoint to one peer: messages of a frame header and a body, both ways.
// It knows nothing of credits or order; the links (ucx_send_link.h, ucx_receive_link.h) and the
// listener stand on it. A worker per connection, so that a peer killed in mid-send cannot harm
// another link.
//
// UCX calls back only inside progress(), send_*() and the destructor; a dead peer is only flagged
// there and acted upon by the owner outside. One thread.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "transport/armed_fault.h"
#include "transport/frame.h"
#include "transport/socket_address.h"
#include "transport/ucx/door.h"
#include "transport/ucx/ucx_context.h"
#include "transport/ucx/ucx_lanes.h"

struct ucp_worker;
struct ucp_ep;
struct ucp_conn_request;
struct ucp_am_recv_param;

namespace chainpump::transport {

/// Whoever owns a connection hears of its messages here, inside progress().
class MessageSink {
 public:
  virtual ~MessageSink() = default;
  /// A whole message; the bytes are valid during the call.
  virtual void on_message(std::span<const std::byte> header, std::span<const std::byte> body) = 0;
  /// A message of `body_bytes` waits at the sender. Returns where all of it is to be put, valid
  /// until on_large_done() or the connection's end, or an empty span to drop it.
  virtual std::span<std::byte> on_large(std::span<const std::byte> header, size_t body_bytes,
                                        uint64_t& sequence) = 0;
  virtual void on_large_done(uint64_t sequence, bool ok) = 0;
  /// The frame sent from `slot` is out; its memory may be written again.
  virtual void on_sent(int32_t slot) = 0;
};

class UcxConnection {
 public:
  /// Begins to connect; failure shows later, as dead().
  static Result<std::unique_ptr<UcxConnection>> connect(std::shared_ptr<UcxContext> context,
                                                        const SocketAddress& address,
                                                        int32_t num_slots);
  /// Takes a connection request of a listener in the same context.
  static Result<std::unique_ptr<UcxConnection>> accept(std::shared_ptr<UcxContext> context,
                                                       ucp_conn_request* request);
  ~UcxConnection();
  UcxConnection(const UcxConnection&) = delete;
  UcxConnection& operator=(const UcxConnection&) = delete;

  /// Null between owners; messages that come then are dropped.
  void set_sink(MessageSink* sink) { sink_ = sink; }

  /// What this end may have been told to do to itself; null: nothing. Outlives it.
  void set_fault(ArmedFault* fault) { fault_ = fault; }

  /// Sends a small message (header, or header and body); the bytes are copied.
  void send_control(std::span<const std::byte> message);
  /// Sends a frame from a slot; the bytes stay until on_sent(slot). False if the peer is dead.
  bool send_frame(std::span<const std::byte> header, std::span<const std::byte> body, int32_t slot);

  /// The other end has spoken, so all lanes are made: nobody else is to reach this worker.
  void shut_doors();

  bool progress();
  bool arm();
  int event_fd() const { return event_fd_; }
  bool dead() const { return dead_; }
  const std::string& death() const { return death_; }
  /// "tcp/lo", "posix+cma": the lanes that UCX chose. Only after a message has come. Costly.
  std::string transport() const { return lanes_text(endpoint_); }

 private:
  struct SendOp;
  struct ReceiveOp;
  struct HeldMessage {
    std::vector<std::byte> header;
    std::vector<std::byte> body;  // of a small one
    void* data = nullptr;         // UCX's, of a large one
    size_t length = 0;
  };
  struct Callbacks;  // the C functions that UCX calls

  explicit UcxConnection(std::shared_ptr<UcxContext> context);
  Status create_worker();
  void died(std::string_view call, int status);
  SendOp* control_op();
  void post(SendOp* op);
  void post_now(SendOp* op);
  void post_control(SendOp* op);
  void post_frame(SendOp* op);
  void post_half_of_frame(SendOp* op);
  bool holds_output();
  void post_held();
  bool hold_input(std::span<const std::byte> header, void* data, size_t length, bool is_large);
  void take_held();
  void drop_held();
  bool take_large(std::span<const std::byte> header, void* data, size_t length);
  void close_endpoint();

  std::shared_ptr<UcxContext> context_;
  ucp_worker* worker_ = nullptr;
  ucp_ep* endpoint_ = nullptr;
  int event_fd_ = -1;
  std::vector<Door> doors_;  // of the worker
  MessageSink* sink_ = nullptr;
  bool dead_ = false;
  std::string death_;
  std::vector<std::unique_ptr<SendOp>> frame_ops_;    // one per slot
  std::vector<std::unique_ptr<SendOp>> control_ops_;  // as many as were ever under way at once
  std::vector<SendOp*> free_control_ops_;
  // In mode NONE, destroying the worker aborts the process if anything waits on an endpoint whose
  // lanes are still to be made (and closing that endpoint is refused). So what is to be sent waits
  // here until they are.
  bool has_lanes_ = true;
  ArmedFault* fault_ = nullptr;      // which may silence either way for a while:
  std::deque<SendOp*> held_;         // what was to be sent meanwhile, in order
  std::deque<HeldMessage> held_in_;  // and what came
  std::vector<std::unique_ptr<ReceiveOp>> receive_ops_;
  std::vector<ReceiveOp*> free_receive_ops_;
};

}  // namespace chainpump::transport
