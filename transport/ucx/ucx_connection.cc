#include "transport/ucx/ucx_connection.h"

#include <ucp/api/ucp.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "transport/ucx/ucx_error.h"

namespace chainpump::transport {
namespace {

constexpr unsigned kMessageId = 1;
constexpr int kProgressRoundsMax = 16;  // of one progress() call, so that it returns
constexpr Duration kForceCloseDeadline = std::chrono::milliseconds(200);
constexpr size_t kControlBytesMax = 128;

std::span<const std::byte> as_bytes(const void* data, size_t length) {
  return {static_cast<const std::byte*>(data), length};
}

}  // namespace

struct UcxConnection::SendOp {
  UcxConnection* connection = nullptr;
  int32_t slot = -1;  // < 0: a control message, whose bytes are here
  std::array<std::byte, kControlBytesMax> bytes{};
  size_t num_bytes = 0;
  std::span<const std::byte> header;  // of a frame, in its slot
  std::span<const std::byte> body;
};

struct UcxConnection::ReceiveOp {
  UcxConnection* connection = nullptr;
  uint64_t sequence = 0;
};

struct UcxConnection::Callbacks {
  static void finish_send(SendOp* op, ucs_status_t status) {
    UcxConnection& c = *op->connection;
    if (status != UCS_OK) c.died("send", status);
    if (op->slot < 0) {
      c.free_control_ops_.push_back(op);
    } else if (c.sink_ != nullptr) {
      c.sink_->on_sent(op->slot);
    }
  }
  static void sent(void* request, ucs_status_t status, void* user_data) {
    ucp_request_free(request);
    finish_send(static_cast<SendOp*>(user_data), status);
  }

  static void finish_receive(ReceiveOp* op, ucs_status_t status) {
    UcxConnection& c = *op->connection;
    c.free_receive_ops_.push_back(op);
    if (status != UCS_OK) c.died("receive", status);
    if (c.sink_ != nullptr) c.sink_->on_large_done(op->sequence, status == UCS_OK);
  }
  static void received(void* request, ucs_status_t status, size_t /*length*/, void* user_data) {
    ucp_request_free(request);
    finish_receive(static_cast<ReceiveOp*>(user_data), status);
  }

  static ucs_status_t message(void* arg, const void* header, size_t header_length, void* data,
                              size_t length, const ucp_am_recv_param_t* param) {
    auto& c = *static_cast<UcxConnection*>(arg);
    if (c.sink_ == nullptr) return UCS_OK;
    const bool is_large = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
    const std::span<const std::byte> bytes = as_bytes(header, header_length);
    if (c.hold_input(bytes, data, length, is_large)) return is_large ? UCS_INPROGRESS : UCS_OK;
    if (is_large) return c.take_large(bytes, data, length) ? UCS_INPROGRESS : UCS_OK;
    c.sink_->on_message(bytes, as_bytes(data, length));
    return UCS_OK;
  }

  // A body that is handed over piece by piece, at whose first piece the rank dies.
  static void* begin_body(void* context, const void*, size_t) { return context; }
  static size_t body_bytes(void* op) { return static_cast<SendOp*>(op)->body.size(); }
  static size_t die_in_body(void* op, size_t, void*, size_t) {
    static_cast<SendOp*>(op)->connection->fault_->die(FaultPoint::mid_frame);
    return 0;
  }
  static void end_body(void*) {}

  static void failed(void* arg, ucp_ep_h, ucs_status_t status) {
    static_cast<UcxConnection*>(arg)->died("connection", status);
  }
};

UcxConnection::UcxConnection(std::shared_ptr<UcxContext> context) : context_(std::move(context)) {}

Status UcxConnection::create_worker() {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucs_status_t status = UCS_OK;
  doors_ =
      Door::opened_by([&] { status = ucp_worker_create(context_->handle(), &params, &worker_); });
  if (status != UCS_OK) return ucx_error("ucp_worker_create", status);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                       UCP_AM_HANDLER_PARAM_FIELD_ARG | UCP_AM_HANDLER_PARAM_FIELD_FLAGS;
  handler.id = kMessageId;
  handler.cb = Callbacks::message;
  handler.arg = this;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  status = ucp_worker_set_am_recv_handler(worker_, &handler);
  if (status != UCS_OK) return ucx_error("ucp_worker_set_am_recv_handler", status);
  status = ucp_worker_get_efd(worker_, &event_fd_);
  if (status != UCS_OK) return ucx_error("ucp_worker_get_efd", status);
  return ok_status();
}

namespace {

// Shared memory has no peer errors in UCX (mode PEER leaves it out); there the socket by which the
// connection was made tells of the death.
ucp_ep_params_t endpoint_params(TransportKind kind, void* connection,
                                ucp_err_handler_cb_t on_failure) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.err_mode =
      kind == TransportKind::tcp ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE;
  params.err_handler.cb = on_failure;
  params.err_handler.arg = connection;
  return params;
}

}  // namespace

Result<std::unique_ptr<UcxConnection>> UcxConnection::connect(std::shared_ptr<UcxContext> context,
                                                              const SocketAddress& address,
                                                              int32_t num_slots) {
  std::unique_ptr<UcxConnection> c(new UcxConnection(std::move(context)));
  RETURN_IF_ERROR(c->create_worker());
  for (int32_t slot = 0; slot < num_slots; ++slot) {
    c->frame_ops_.push_back(std::make_unique<SendOp>());
    c->frame_ops_.back()->connection = c.get();
    c->frame_ops_.back()->slot = slot;
  }
  ucp_ep_params_t params = endpoint_params(c->context_->kind(), c.get(), Callbacks::failed);
  params.field_mask |= UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = address.get();
  params.sockaddr.addrlen = address.length;
  const ucs_status_t status = ucp_ep_create(c->worker_, &params, &c->endpoint_);
  if (status != UCS_OK) return ucx_error("ucp_ep_create", status);
  c->has_lanes_ = c->context_->kind() == TransportKind::tcp;
  return c;
}

Result<std::unique_ptr<UcxConnection>> UcxConnection::accept(std::shared_ptr<UcxContext> context,
                                                             ucp_conn_request* request) {
  std::unique_ptr<UcxConnection> c(new UcxConnection(std::move(context)));
  RETURN_IF_ERROR(c->create_worker());
  ucp_ep_params_t params = endpoint_params(c->context_->kind(), c.get(), Callbacks::failed);
  params.field_mask |= UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  const ucs_status_t status = ucp_ep_create(c->worker_, &params, &c->endpoint_);
  if (status != UCS_OK) return ucx_error("ucp_ep_create", status);
  return c;
}

UcxConnection::~UcxConnection() {
  sink_ = nullptr;
  if (worker_ == nullptr) return;
  drop_held();
  close_endpoint();
  ucp_worker_destroy(worker_);
}

// Mode NONE refuses a forced close; there destroying the worker does it.
void UcxConnection::close_endpoint() {
  if (endpoint_ == nullptr || context_->kind() != TransportKind::tcp) return;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = UCP_EP_CLOSE_FLAG_FORCE;
  const ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint_, &params);
  if (!UCS_PTR_IS_PTR(request)) return;
  const TimePoint deadline = steady_clock().now() + kForceCloseDeadline;
  while (ucp_request_check_status(request) == UCS_INPROGRESS && steady_clock().now() < deadline) {
    ucp_worker_progress(worker_);
  }
  ucp_request_free(request);
}

void UcxConnection::died(std::string_view call, int status) {
  if (dead_) return;
  dead_ = true;
  death_ = fmt::format("{}: {}", call, ucs_status_string(static_cast<ucs_status_t>(status)));
}

UcxConnection::SendOp* UcxConnection::control_op() {
  if (free_control_ops_.empty()) {
    control_ops_.push_back(std::make_unique<SendOp>());
    control_ops_.back()->connection = this;
    free_control_ops_.push_back(control_ops_.back().get());
  }
  SendOp* op = free_control_ops_.back();
  free_control_ops_.pop_back();
  return op;
}

void UcxConnection::send_control(std::span<const std::byte> message) {
  CHECK_GE(message.size(), kFrameHeaderBytes);
  CHECK_LE(message.size(), kControlBytesMax);
  if (dead_) return;
  SendOp* op = control_op();
  std::copy(message.begin(), message.end(), op->bytes.begin());
  op->num_bytes = message.size();
  post(op);
}

/// In the order of the calls, as soon as anything may be sent.
void UcxConnection::post(SendOp* op) {
  if (!held_.empty() || holds_output()) return held_.push_back(op);
  post_now(op);
}

void UcxConnection::post_now(SendOp* op) {
  if (op->slot < 0) return post_control(op);
  const bool is_last = fault_ != nullptr && !op->body.empty() && fault_->dies_in_this_frame();
  is_last ? post_half_of_frame(op) : post_frame(op);
}

bool UcxConnection::holds_output() {
  return !has_lanes_ || (fault_ != nullptr && fault_->silences_output());
}

void UcxConnection::post_held() {
  while (!held_.empty() && !holds_output()) {
    SendOp* const op = held_.front();
    held_.pop_front();
    post_now(op);
  }
}

void UcxConnection::post_control(SendOp* op) {
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.flags = UCP_AM_SEND_FLAG_EAGER;
  params.cb.send = Callbacks::sent;
  params.user_data = op;
  const ucs_status_ptr_t status = ucp_am_send_nbx(
      endpoint_, kMessageId, op->bytes.data(), kFrameHeaderBytes,
      op->bytes.data() + kFrameHeaderBytes, op->num_bytes - kFrameHeaderBytes, &params);
  if (!UCS_PTR_IS_PTR(status)) Callbacks::finish_send(op, UCS_PTR_STATUS(status));
}

bool UcxConnection::send_frame(std::span<const std::byte> header, std::span<const std::byte> body,
                               int32_t slot) {
  if (dead_) return false;
  SendOp* op = frame_ops_[static_cast<size_t>(slot)].get();
  op->header = header;
  op->body = body;
  post(op);
  return !dead_;
}

void UcxConnection::post_frame(SendOp* op) {
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.flags = op->body.size() <= context_->eager_bytes_max() ? UCP_AM_SEND_FLAG_EAGER
                                                                : UCP_AM_SEND_FLAG_RNDV;
  params.cb.send = Callbacks::sent;
  params.user_data = op;
  const ucs_status_ptr_t status =
      ucp_am_send_nbx(endpoint_, kMessageId, op->header.data(), op->header.size(), op->body.data(),
                      op->body.size(), &params);
  if (!UCS_PTR_IS_PTR(status)) Callbacks::finish_send(op, UCS_PTR_STATUS(status));
}

/// By rendezvous: the header goes out, and when the receiver asks for the body this rank dies.
void UcxConnection::post_half_of_frame(SendOp* op) {
  ucp_generic_dt_ops_t body{};
  body.start_pack = Callbacks::begin_body;
  body.packed_size = Callbacks::body_bytes;
  body.pack = Callbacks::die_in_body;
  body.finish = Callbacks::end_body;
  ucp_datatype_t type = 0;
  if (ucp_dt_create_generic(&body, op, &type) != UCS_OK) return fault_->die(FaultPoint::mid_frame);
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE;
  params.flags = UCP_AM_SEND_FLAG_RNDV;
  params.datatype = type;
  const ucs_status_ptr_t status = ucp_am_send_nbx(endpoint_, kMessageId, op->header.data(),
                                                  op->header.size(), op->body.data(), 1, &params);
  if (!UCS_PTR_IS_PTR(status)) fault_->die(FaultPoint::mid_frame);
}

/// What comes is kept for later while it is not to be looked at, and until what came before was.
bool UcxConnection::hold_input(std::span<const std::byte> header, void* data, size_t length,
                               bool is_large) {
  if (held_in_.empty() && (fault_ == nullptr || !fault_->silences_input())) return false;
  HeldMessage& held = held_in_.emplace_back();
  held.header.assign(header.begin(), header.end());
  if (is_large) {
    held.data = data;
    held.length = length;
  } else {
    const auto body = as_bytes(data, length);
    held.body.assign(body.begin(), body.end());
  }
  return true;
}

void UcxConnection::take_held() {
  while (!held_in_.empty() && sink_ != nullptr && !fault_->silences_input()) {
    const HeldMessage message = std::move(held_in_.front());
    held_in_.pop_front();
    if (message.data == nullptr) {
      sink_->on_message(message.header, message.body);
    } else if (!take_large(message.header, message.data, message.length)) {
      ucp_am_data_release(worker_, message.data);
    }
  }
}

void UcxConnection::drop_held() {
  for (const HeldMessage& message : held_in_)
    if (message.data != nullptr) ucp_am_data_release(worker_, message.data);
  held_in_.clear();
}

/// False if the owner drops it.
bool UcxConnection::take_large(std::span<const std::byte> header, void* data, size_t length) {
  uint64_t sequence = 0;
  const std::span<std::byte> place = sink_->on_large(header, length, sequence);
  if (place.empty()) return false;
  CHECK_EQ(place.size(), length);
  if (free_receive_ops_.empty()) {
    receive_ops_.push_back(std::make_unique<ReceiveOp>());
    free_receive_ops_.push_back(receive_ops_.back().get());
  }
  ReceiveOp* op = free_receive_ops_.back();
  free_receive_ops_.pop_back();
  *op = ReceiveOp{this, sequence};
  ucp_request_param_t request{};
  request.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  request.cb.recv_am = Callbacks::received;
  request.user_data = op;
  const ucs_status_ptr_t status =
      ucp_am_recv_data_nbx(worker_, data, place.data(), length, &request);
  if (!UCS_PTR_IS_PTR(status)) Callbacks::finish_receive(op, UCS_PTR_STATUS(status));
  return true;
}

void UcxConnection::shut_doors() {
  for (const Door& door : doors_) door.shut();
  doors_.clear();
}

bool UcxConnection::progress() {
  int rounds = 0;
  while (rounds < kProgressRoundsMax && ucp_worker_progress(worker_) != 0) ++rounds;
  if (!has_lanes_ && !dead_ && lanes_stand(endpoint_)) has_lanes_ = true;
  if (!held_.empty() && !dead_) post_held();
  if (!held_in_.empty()) take_held();
  return rounds > 0;
}

bool UcxConnection::arm() { return ucp_worker_arm(worker_) == UCS_OK; }

}  // namespace chainpump::transport
