#include "transport/ucx/listener_core.h"

#include <sys/timerfd.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "transport/ucx/ucx_error.h"
#include "transport/ucx/ucx_receive_link.h"

namespace chainpump::transport {
namespace {

constexpr size_t kStrangersMax = 16;  // each has a worker of some MiB
constexpr size_t kRequestsMax = 256;  // that wait for the room of one of those
constexpr Duration kRefusalLinger = std::chrono::milliseconds(200);  // for the refusal to get there

}  // namespace

/// A connection that has not shown who it is.
class ListenerCore::Stranger final : public MessageSink {
 public:
  Stranger(std::unique_ptr<UcxConnection> made, TimePoint due)
      : connection(std::move(made)), deadline(due) {
    connection->set_sink(this);
  }

  void on_message(std::span<const std::byte> header, std::span<const std::byte> body) override {
    // Only the first counts; what it may be long is known.
    if (spoke) return;
    spoke = true;
    if (header.size() != kFrameHeaderBytes || body.size() != kHelloBytes) return;
    hello_header.assign(header.begin(), header.end());
    hello_body.assign(body.begin(), body.end());
  }
  std::span<std::byte> on_large(std::span<const std::byte>, size_t, uint64_t&) override {
    spoke = true;
    return {};
  }
  void on_large_done(uint64_t, bool) override {}
  void on_sent(int32_t) override {}

  bool spoke = false;
  bool answered = false;
  std::vector<std::byte> hello_header;
  std::vector<std::byte> hello_body;
  std::unique_ptr<UcxConnection> connection;
  TimePoint deadline;
};

ListenerCore::ListenerCore(std::shared_ptr<UcxContext> context, Duration hello_deadline)
    : context_(std::move(context)),
      hello_deadline_(hello_deadline),
      timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  CHECK(timer_.valid());
  events_.add(timer_.get());
}

Result<std::shared_ptr<ListenerCore>> ListenerCore::create(std::shared_ptr<UcxContext> context,
                                                           const UcxListenerOptions& options) {
  ASSIGN_OR_RETURN(const SocketAddress bind, parse_socket_address(options.bind));
  std::shared_ptr<ListenerCore> core(new ListenerCore(std::move(context), options.hello_deadline));
  RETURN_IF_ERROR(core->open(bind));
  return core;
}

Status ListenerCore::open(const SocketAddress& bind) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucs_status_t status = UCS_OK;
  const auto worker_doors =
      Door::opened_by([&] { status = ucp_worker_create(context_->handle(), &params, &worker_); });
  if (status != UCS_OK) return ucx_error("ucp_worker_create", status);
  for (const Door& door : worker_doors) door.shut();  // nobody connects to the worker itself
  status = ucp_worker_get_efd(worker_, &worker_event_fd_);
  if (status != UCS_OK) return ucx_error("ucp_worker_get_efd", status);
  events_.add(worker_event_fd_);

  ucp_listener_params_t listener{};
  listener.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  listener.sockaddr.addr = bind.get();
  listener.sockaddr.addrlen = bind.length;
  listener.conn_handler.cb = on_request;
  listener.conn_handler.arg = this;
  const auto doors =
      Door::opened_by([&] { status = ucp_listener_create(worker_, &listener, &listener_); });
  if (status != UCS_OK) {
    return make_error(ErrorCode::invalid_argument, "cannot listen on {}: {}",
                      to_string(bind.storage), ucs_status_string(status));
  }
  for (const Door& door : doors) door.only_whole_messages();
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  status = ucp_listener_query(listener_, &attributes);
  if (status != UCS_OK) return ucx_error("ucp_listener_query", status);
  address_ = to_string(attributes.sockaddr);
  return ok_status();
}

// Only with its worker does UCX close the connections that have not asked for anything yet.
void ListenerCore::shut() {
  if (listener_ != nullptr) {
    for (ucp_conn_request* request : requests_) ucp_listener_reject(listener_, request);
    ucp_listener_destroy(listener_);
  }
  requests_.clear();
  listener_ = nullptr;
  if (worker_event_fd_ >= 0) events_.remove(worker_event_fd_);
  worker_event_fd_ = -1;
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  worker_ = nullptr;
}

ListenerCore::~ListenerCore() {
  strangers_.clear();
  shut();
}

Status ListenerCore::open_again() {
  if (listener_ != nullptr) return ok_status();
  shut();  // what an attempt that failed has left
  ASSIGN_OR_RETURN(const SocketAddress bind, parse_socket_address(address_));
  return open(bind);
}

Status ListenerCore::keep_open(bool keep) {
  kept_open_ = keep;
  if (!keep) {
    if (waiting_.empty()) shut();
    return ok_status();
  }
  if (open_again().ok()) return ok_status();
  shut();
  ASSIGN_OR_RETURN(const SocketAddress any,
                   parse_socket_address(address_.substr(0, address_.rfind(':')) + ":0"));
  return open(any);
}

Status ListenerCore::add_waiting(UcxReceiveLink* link) {
  RETURN_IF_ERROR(open_again());
  waiting_.push_back(link);
  return ok_status();
}

void ListenerCore::remove_waiting(UcxReceiveLink* link) {
  std::erase(waiting_, link);
  if (waiting_.empty() && !kept_open_) shut();
}

bool ListenerCore::is_waiting(EdgeId edge) const {
  return std::any_of(waiting_.begin(), waiting_.end(),
                     [&](const UcxReceiveLink* link) { return link->options().edge == edge; });
}

void ListenerCore::on_request(ucp_conn_request* request, void* arg) {
  auto& core = *static_cast<ListenerCore*>(arg);
  if (core.requests_.size() < kRequestsMax) {
    core.requests_.push_back(request);
  } else {
    ucp_listener_reject(core.listener_, request);
  }
}

bool ListenerCore::may_accept() const {
  return !requests_.empty() && strangers_.size() < kStrangersMax;
}

void ListenerCore::accept_requests() {
  while (may_accept()) {
    ucp_conn_request* request = requests_.front();
    requests_.pop_front();
    auto connection = UcxConnection::accept(context_, request);
    if (!connection.ok()) continue;  // the peer is gone again; UCX freed its request
    events_.add((*connection)->event_fd());
    strangers_.push_back(
        std::make_unique<Stranger>(std::move(*connection), steady_clock().now() + hello_deadline_));
  }
}

bool ListenerCore::progress() {
  uint64_t expirations;
  bool any = read(timer_.get(), &expirations, sizeof expirations) > 0;
  while (worker_ != nullptr && ucp_worker_progress(worker_) != 0) any = true;
  any |= may_accept();
  accept_requests();
  for (size_t i = 0; i < strangers_.size();) {
    Stranger& stranger = *strangers_[i];
    any |= stranger.connection->progress();
    if (serve(stranger)) {
      ++i;
      continue;
    }
    if (stranger.connection) events_.remove(stranger.connection->event_fd());
    strangers_.erase(strangers_.begin() + static_cast<ptrdiff_t>(i));
    any = true;
  }
  return any;
}

// False when the stranger is done with: taken by a link, dead, silent for too long, or refused a
// while ago.
bool ListenerCore::serve(Stranger& stranger) {
  const TimePoint now = steady_clock().now();
  if (stranger.connection->dead()) return false;
  const bool overdue = now >= stranger.deadline;
  if (stranger.answered || !stranger.spoke) return !overdue;

  FrameField refused = FrameField::size;
  LinkOptions echo;  // whose ids the refusal carries
  const auto claim = read_hello(stranger.hello_header, stranger.hello_body);
  if (claim.ok()) {
    const auto link = std::find_if(
        waiting_.begin(), waiting_.end(),
        [&](const UcxReceiveLink* waiting) { return waiting->options().edge == claim->edge; });
    // Its link may be accepted here a moment later.
    if (link == waiting_.end() && !overdue) return true;
    refused = FrameField::edge;
    echo.edge = claim->edge;
    if (link != waiting_.end()) {
      echo = (*link)->options();
      refused = check_hello(echo, stranger.hello_header, stranger.hello_body);
      if (refused == FrameField::none) {
        events_.remove(stranger.connection->event_fd());
        (*link)->take_connection(std::move(stranger.connection));
        waiting_.erase(link);
        return false;
      }
    }
  } else {
    refused = check_hello(echo, stranger.hello_header, stranger.hello_body);
  }
  stranger.connection->send_control(encode_hello_reply(echo, refused, steady_clock()));
  stranger.answered = true;
  stranger.deadline = now + kRefusalLinger;
  return true;
}

bool ListenerCore::arm() {
  bool armed = !may_accept() && (worker_ == nullptr || ucp_worker_arm(worker_) == UCS_OK);
  TimePoint next{Duration::max()};
  for (const auto& stranger : strangers_) {
    armed = armed && !stranger->connection->dead() && stranger->connection->arm();
    next = std::min(next, stranger->deadline);
  }
  if (!armed || strangers_.empty()) return armed;
  const Duration left = std::max(next - steady_clock().now(), Duration(1));
  itimerspec timer{};
  timer.it_value.tv_sec = left.count() / 1'000'000'000;
  timer.it_value.tv_nsec = left.count() % 1'000'000'000;
  CHECK_EQ(timerfd_settime(timer_.get(), 0, &timer, nullptr), 0);
  return true;
}

}  // namespace chainpump::transport
