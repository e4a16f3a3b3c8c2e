// The listener's worker, the connections whose hello is still to come, and the links that wait for
// theirs. Shared by the listener and its connecting links. It listens from its creation until the
// last of the links that wait has its sender, and again when another is to wait, or as long as it
// is kept open. One thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "transport/hello.h"
#include "transport/ucx/link_epoll.h"
#include "transport/ucx/ucx_connection.h"
#include "transport/ucx/ucx_listener.h"

struct ucp_listener;

namespace chainpump::transport {

class UcxReceiveLink;

class ListenerCore {
 public:
  static Result<std::shared_ptr<ListenerCore>> create(std::shared_ptr<UcxContext> context,
                                                      const UcxListenerOptions& options);
  ~ListenerCore();
  ListenerCore(const ListenerCore&) = delete;
  ListenerCore& operator=(const ListenerCore&) = delete;

  const std::string& address() const { return address_; }
  /// Listens again, if it had been shut, at another port if another process has taken its own.
  Status keep_open(bool keep);
  /// Listens again, if it had been shut; not if another process has taken the port meanwhile.
  Status add_waiting(UcxReceiveLink* link);
  /// The last one shuts the port, unless it is kept open, with whatever stranger is in it.
  void remove_waiting(UcxReceiveLink* link);
  bool is_waiting(EdgeId edge) const;

  bool progress();
  bool arm();
  int event_fd() const { return events_.fd(); }

 private:
  class Stranger;

  ListenerCore(std::shared_ptr<UcxContext> context, Duration hello_deadline);
  static void on_request(ucp_conn_request* request, void* arg);
  Status open(const SocketAddress& bind);
  Status open_again();
  void shut();
  bool may_accept() const;
  void accept_requests();
  bool serve(Stranger& stranger);

  std::shared_ptr<UcxContext> context_;
  Duration hello_deadline_;
  std::string address_;
  ucp_worker* worker_ = nullptr;  // this and the listener: null while shut
  ucp_listener* listener_ = nullptr;
  int worker_event_fd_ = -1;
  LinkEpoll events_;
  UniqueFd timer_;  // so that a sleeper wakes for the deadline of a silent connection
  std::deque<ucp_conn_request*> requests_;
  std::vector<std::unique_ptr<Stranger>> strangers_;
  std::vector<UcxReceiveLink*> waiting_;
  bool kept_open_ = false;
};

}  // namespace chainpump::transport
