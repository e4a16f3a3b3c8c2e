#include "transport/ucx/ucx_connection.h"

#include <ucp/api/ucp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>
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
constexpr std::string_view kNoTransport = "unknown";

std::span<const std::byte> as_bytes(const void* data, size_t length) {
  return {static_cast<const std::byte*>(data), length};
}

}  // namespace

struct UcxConnection::SendOp {
  UcxConnection* connection = nullptr;
  int32_t slot = -1;  // < 0: a control message, whose bytes are here
  std::array<std::byte, kControlBytesMax> bytes{};
  size_t num_bytes = 0;
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
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0) {
      c.sink_->on_message(as_bytes(header, header_length), as_bytes(data, length));
      return UCS_OK;
    }
    uint64_t sequence = 0;
    const std::span<std::byte> place =
        c.sink_->on_large(as_bytes(header, header_length), length, sequence);
    if (place.empty()) return UCS_OK;
    CHECK_EQ(place.size(), length);
    if (c.free_receive_ops_.empty()) {
      c.receive_ops_.push_back(std::make_unique<ReceiveOp>());
      c.free_receive_ops_.push_back(c.receive_ops_.back().get());
    }
    ReceiveOp* op = c.free_receive_ops_.back();
    c.free_receive_ops_.pop_back();
    *op = ReceiveOp{&c, sequence};
    ucp_request_param_t request{};
    request.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
    request.cb.recv_am = received;
    request.user_data = op;
    const ucs_status_ptr_t status =
        ucp_am_recv_data_nbx(c.worker_, data, place.data(), length, &request);
    if (!UCS_PTR_IS_PTR(status)) finish_receive(op, UCS_PTR_STATUS(status));
    return UCS_INPROGRESS;
  }

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
  if (has_lanes_) {
    post_control(op);
  } else {
    held_.push_back(op);
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
  ucp_request_param_t params{};
  params.op_attr_mask =
      UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  params.flags =
      body.size() <= context_->eager_bytes_max() ? UCP_AM_SEND_FLAG_EAGER : UCP_AM_SEND_FLAG_RNDV;
  params.cb.send = Callbacks::sent;
  params.user_data = op;
  const ucs_status_ptr_t status = ucp_am_send_nbx(endpoint_, kMessageId, header.data(),
                                                  header.size(), body.data(), body.size(), &params);
  if (!UCS_PTR_IS_PTR(status)) Callbacks::finish_send(op, UCS_PTR_STATUS(status));
  return !UCS_PTR_IS_ERR(status);
}

void UcxConnection::shut_doors() {
  for (const Door& door : doors_) door.shut();
  doors_.clear();
}

bool UcxConnection::progress() {
  int rounds = 0;
  while (rounds < kProgressRoundsMax && ucp_worker_progress(worker_) != 0) ++rounds;
  if (!has_lanes_ && !dead_ && lanes_stand()) {
    has_lanes_ = true;
    for (SendOp* op : std::exchange(held_, {})) post_control(op);
  }
  return rounds > 0;
}

bool UcxConnection::arm() { return ucp_worker_arm(worker_) == UCS_OK; }

// UCX has no name for this; but without a lane nothing would ever arrive.
bool UcxConnection::lanes_stand() const {
  ucp_ep_evaluate_perf_param_t message{};
  message.field_mask = UCP_EP_PERF_PARAM_FIELD_MESSAGE_SIZE;
  message.message_size = 1;
  ucp_ep_evaluate_perf_attr_t estimate{};
  estimate.field_mask = UCP_EP_PERF_ATTR_FIELD_ESTIMATED_TIME;
  return ucp_ep_evaluate_perf(endpoint_, &message, &estimate) == UCS_OK &&
         std::isfinite(estimate.estimated_time);
}

// UCX 1.13 tells its choice only as text for people: lines such as
//   "lane[1]:  0:tcp/lo.0 md[0]  -> ..." and "lane[2]: cm tcp".
// Only once a message has come: before, UCX prints what it has not written yet.
std::string UcxConnection::transport() const {
  char* text = nullptr;
  size_t length = 0;
  FILE* file = open_memstream(&text, &length);
  CHECK(file != nullptr);
  ucp_ep_print_info(endpoint_, file);
  fclose(file);
  std::istringstream lines(std::string(text, length));
  free(text);
  std::string result;
  for (std::string line; std::getline(lines, line);) {
    const size_t lane = line.find("lane[");
    const size_t slash = line.find('/', lane);
    if (lane == std::string::npos || slash == std::string::npos) continue;
    const size_t begin = line.rfind(':', slash) + 1;
    const std::string name = line.substr(begin, slash - begin);
    const size_t end = line.find('.', slash);
    const std::string device = line.substr(slash + 1, end - slash - 1);
    const std::string shown = device == "memory" ? name : name + "/" + device;
    if (result.find(shown) != std::string::npos) continue;
    result += (result.empty() ? "" : "+") + shown;
  }
  return result.empty() ? std::string(kNoTransport) : result;
}

}  // namespace chainpump::transport
