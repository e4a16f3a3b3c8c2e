#include "actors/rank_links.h"

#include <charconv>

#include "base/check.h"
#include "transport/link_core.h"
#include "transport/network_socket.h"
#include "transport/socket_address.h"
#include "transport/ucx/ucx_send_link.h"

namespace chainpump::actors {
namespace {

bool is_loopback(const graph::EdgePlan& edge) {
  return edge.transport == graph::TransportKind::loopback;
}

// TCP is what `automatic` means: it alone reports every kind of death by itself.
transport::TransportKind ucx_kind(const graph::EdgePlan& edge) {
  return edge.transport == graph::TransportKind::shared_memory
             ? transport::TransportKind::shared_memory
             : transport::TransportKind::tcp;
}

Result<std::pair<std::string, uint16_t>> split_port(const std::string& address) {
  const size_t colon = address.rfind(':');
  uint16_t port = 0;
  if (colon == std::string::npos ||
      std::from_chars(address.data() + colon + 1, address.data() + address.size(), port).ec !=
          std::errc())
    return make_error(ErrorCode::internal, "the listener's address '{}' has no port", address);
  return std::pair(address.substr(0, colon), port);
}

}  // namespace

transport::LinkPair& LoopbackHub::pair_for(const transport::LinkOptions& options) {
  const auto key = std::pair(options.edge, options.incarnation);
  const auto found = waiting_.find(key);
  if (found != waiting_.end()) return found->second;
  waiting_.erase(waiting_.lower_bound(std::pair(options.edge, LinkIncarnation(0))),
                 waiting_.lower_bound(key));
  return waiting_.emplace(key, transport::make_loopback_pair(options)).first->second;
}

void LoopbackHub::forget_if_taken(const transport::LinkOptions& options) {
  const auto found = waiting_.find({options.edge, options.incarnation});
  if (!found->second.first && !found->second.second) waiting_.erase(found);
}

std::unique_ptr<transport::SendLink> LoopbackHub::take_sender(
    const transport::LinkOptions& options) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<transport::SendLink> link = std::move(pair_for(options).first);
  forget_if_taken(options);
  return link;
}

std::unique_ptr<transport::ReceiveLink> LoopbackHub::take_receiver(
    const transport::LinkOptions& options) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<transport::ReceiveLink> link = std::move(pair_for(options).second);
  forget_if_taken(options);
  return link;
}

transport::LinkOptions link_options(const graph::EdgePlan& edge, PlanEpoch epoch, uint64_t secret,
                                    uint32_t incarnation) {
  const bool over_tcp = !is_loopback(edge) && ucx_kind(edge) == transport::TransportKind::tcp;
  return {.edge = edge.id,
          .epoch = epoch,
          .incarnation = LinkIncarnation(incarnation),
          .secret = secret,
          .credits = edge.credits,
          .slot_payload_bytes = edge.slot_payload_bytes,
          .slot_metadata_bytes = edge.slot_metadata_bytes,
          .checksum_payload = edge.checksum == graph::ChecksumPolicy::automatic
                                  ? over_tcp
                                  : edge.checksum == graph::ChecksumPolicy::on};
}

Result<std::pair<std::string, uint16_t>> RankLinks::listen(const graph::EdgePlan& input,
                                                           const graph::EdgePlan& output,
                                                           const std::string& address) {
  if (is_loopback(input) != is_loopback(output) || ucx_kind(input) != ucx_kind(output))
    return make_error(ErrorCode::unimplemented,
                      "edges {} and {} of one stage use different transports; use one for all",
                      input.id, output.id);
  for (const graph::EdgePlan* edge : {&input, &output})
    RETURN_IF_ERROR(transport::check_link_options(link_options(*edge, PlanEpoch(1), 0, 1)));
  address_ = address;
  if (is_loopback(input)) return std::pair(std::string(), uint16_t{0});
  is_tcp_ = ucx_kind(input) == transport::TransportKind::tcp;
  const Result<std::string> interface = transport::interface_of(address);
  if (!interface.ok()) return interface.error();
  is_on_network_ = *interface != "lo";
  ASSIGN_OR_RETURN(context_, transport::UcxContext::create(
                                 {.kind = ucx_kind(input), .net_devices = *interface}));
  ASSIGN_OR_RETURN(listener_, transport::UcxListener::create(context_, {.bind = address + ":0"}));
  RETURN_IF_ERROR(listener_->keep_open(true));
  return split_port(listener_->address());
}

Result<uint16_t> RankLinks::open() {
  if (!listener_) return uint16_t{0};
  RETURN_IF_ERROR(listener_->keep_open(true));
  ASSIGN_OR_RETURN(const auto address, split_port(listener_->address()));
  return address.second;
}

void RankLinks::watch_network() const {
  if (is_on_network_) transport::tune_network_sockets();
}

void RankLinks::shut() {
  if (listener_) CHECK(listener_->keep_open(false).ok());
}

Result<std::unique_ptr<transport::ReceiveLink>> RankLinks::accept(
    const graph::EdgePlan& edge, PlanEpoch epoch, const transport::rpc::LinkAccept& from) {
  transport::LinkOptions options = link_options(edge, epoch, from.secret, from.incarnation);
  options.fault = fault_;
  if (!is_loopback(edge)) return listener_->accept(options);
  return hub_->take_receiver(options);
}

Result<std::unique_ptr<transport::SendLink>> RankLinks::connect(
    const graph::EdgePlan& edge, PlanEpoch epoch, const transport::rpc::LinkTarget& to) {
  transport::LinkOptions options = link_options(edge, epoch, to.secret, to.incarnation);
  options.fault = fault_;
  if (!is_loopback(edge))
    return ucx_connect(context_, fmt::format("{}:{}", to.address, to.port), options);
  return hub_->take_sender(options);
}

Status RankLinks::make_copies_context() {
  if (copies_context_) return ok_status();
  if (is_tcp_) {
    copies_context_ = context_;
    return ok_status();
  }
  const Result<std::string> interface = transport::interface_of(address_);
  if (!interface.ok()) return interface.error();
  ASSIGN_OR_RETURN(copies_context_,
                   transport::UcxContext::create(
                       {.kind = transport::TransportKind::tcp, .net_devices = *interface}));
  return ok_status();
}

Result<std::pair<std::string, uint16_t>> RankLinks::listen_for_copies() {
  if (!hub_->of_one_rank()) return std::pair(std::string(), uint16_t{0});
  RETURN_IF_ERROR(make_copies_context());
  if (is_tcp_) {
    RETURN_IF_ERROR(listener_->keep_open(true));
    return split_port(listener_->address());
  }
  if (!copies_listener_) {
    ASSIGN_OR_RETURN(copies_listener_,
                     transport::UcxListener::create(copies_context_, {.bind = address_ + ":0"}));
    RETURN_IF_ERROR(copies_listener_->keep_open(true));
  }
  return split_port(copies_listener_->address());
}

Result<std::unique_ptr<transport::ReceiveLink>> RankLinks::accept_copy(
    graph::EdgePlan edge, PlanEpoch epoch, const transport::rpc::LinkAccept& from) {
  const bool is_here = !hub_->of_one_rank();
  edge.transport = is_here ? graph::TransportKind::loopback : graph::TransportKind::tcp;
  transport::LinkOptions options = link_options(edge, epoch, from.secret, from.incarnation);
  options.fault = fault_;
  if (is_here) return hub_->take_receiver(options);
  return (is_tcp_ ? listener_ : copies_listener_)->accept(options);
}

Result<std::unique_ptr<transport::SendLink>> RankLinks::connect_copy(
    graph::EdgePlan edge, PlanEpoch epoch, const transport::rpc::LinkTarget& to) {
  const bool is_here = !hub_->of_one_rank();
  edge.transport = is_here ? graph::TransportKind::loopback : graph::TransportKind::tcp;
  transport::LinkOptions options = link_options(edge, epoch, to.secret, to.incarnation);
  options.fault = fault_;
  if (is_here) return hub_->take_sender(options);
  RETURN_IF_ERROR(make_copies_context());
  return ucx_connect(copies_context_, fmt::format("{}:{}", to.address, to.port), options);
}

}  // namespace chainpump::actors
