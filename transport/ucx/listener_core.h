// The listener's worker, the connections whose hello is still to come, and the links that wait for
// theirs. Shared by the listener and its connecting links. One thread.
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
  void add_waiting(UcxReceiveLink* link) { waiting_.push_back(link); }
  void remove_waiting(UcxReceiveLink* link) { std::erase(waiting_, link); }
  bool is_waiting(EdgeId edge) const;

  bool progress();
  bool arm();
  int event_fd() const { return events_.fd(); }

 private:
  class Stranger;

  ListenerCore(std::shared_ptr<UcxContext> context, Duration hello_deadline);
  static void on_request(ucp_conn_request* request, void* arg);
  void accept_requests();
  bool serve(Stranger& stranger);

  std::shared_ptr<UcxContext> context_;
  Duration hello_deadline_;
  std::string address_;
  ucp_worker* worker_ = nullptr;
  ucp_listener* listener_ = nullptr;
  int worker_event_fd_ = -1;
  LinkEpoll events_;
  UniqueFd timer_;  // so that a sleeper wakes for the deadline of a silent connection
  std::deque<ucp_conn_request*> requests_;
  std::vector<std::unique_ptr<Stranger>> strangers_;
  std::vector<UcxReceiveLink*> waiting_;
};

}  // namespace chainpump::transport
