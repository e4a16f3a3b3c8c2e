#include "transport/ucx/ucx_listener.h"

#include "transport/link_core.h"
#include "transport/ucx/listener_core.h"
#include "transport/ucx/ucx_receive_link.h"

namespace chainpump::transport {

Result<std::unique_ptr<UcxListener>> UcxListener::create(std::shared_ptr<UcxContext> context,
                                                         const UcxListenerOptions& options) {
  ASSIGN_OR_RETURN(auto core, ListenerCore::create(std::move(context), options));
  return std::unique_ptr<UcxListener>(new UcxListener(std::move(core)));
}

UcxListener::UcxListener(std::shared_ptr<ListenerCore> core) : core_(std::move(core)) {}
UcxListener::~UcxListener() = default;

const std::string& UcxListener::address() const { return core_->address(); }

Status UcxListener::keep_open(bool keep) { return core_->keep_open(keep); }

Result<std::unique_ptr<ReceiveLink>> UcxListener::accept(const LinkOptions& options) {
  RETURN_IF_ERROR(check_link_options(options));
  if (core_->is_waiting(options.edge)) {
    return make_error(ErrorCode::invalid_argument, "edge {} is waited for already", options.edge);
  }
  ASSIGN_OR_RETURN(auto link, UcxReceiveLink::create(options, core_));
  return std::unique_ptr<ReceiveLink>(std::move(link));
}

bool UcxListener::progress() { return core_->progress(); }
int UcxListener::event_fd() const { return core_->event_fd(); }
bool UcxListener::arm() { return core_->arm(); }

}  // namespace chainpump::transport
