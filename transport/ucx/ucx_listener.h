// Where senders connect to. A rank makes one, tells the control plane its address, and accepts a
// link for each edge that ends in it. A connection proves by its hello that it knows the link's
// secret; one that does not, or says nothing within the deadline, is dropped without disturbing the
// others. Links keep what they need of the listener alive. The port is open until the last link
// that waits has its sender, and again from the next accept() on; or as long as keep_open() says.
// One thread, the links'.
#pragma once

#include <memory>
#include <string>

#include "transport/link.h"
#include "transport/ucx/ucx_context.h"

namespace chainpump::transport {

class ListenerCore;

struct UcxListenerOptions {
  std::string bind = "127.0.0.1:0";  // numeric; port 0: any
  Duration hello_deadline = std::chrono::seconds(5);
};

class UcxListener {
 public:
  static Result<std::unique_ptr<UcxListener>> create(std::shared_ptr<UcxContext> context,
                                                     const UcxListenerOptions& options);
  ~UcxListener();

  /// "127.0.0.1:40123", for ucx_connect().
  const std::string& address() const;

  /// While it is kept open a sender may come before its accept(). If another process has taken the
  /// port since it was shut, the address changes.
  Status keep_open(bool keep);

  /// A link in state connecting, to be opened by a sender with the same options. Its progress()
  /// moves the listener along. It fails with deadline_exceeded after kConnectDeadline without such
  /// a sender. invalid_argument for options that cannot be, or if the edge is waited for already.
  Result<std::unique_ptr<ReceiveLink>> accept(const LinkOptions& options);

  /// Needed only while no link is connecting: answers strangers.
  bool progress();
  int event_fd() const;
  bool arm();

 private:
  explicit UcxListener(std::shared_ptr<ListenerCore> core);
  std::shared_ptr<ListenerCore> core_;
};

}  // namespace chainpump::transport
