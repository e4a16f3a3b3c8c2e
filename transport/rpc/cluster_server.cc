#include "transport/rpc/cluster_server.h"

#include <algorithm>
#include <cmath>

#include "transport/rpc/channel.h"
#include "transport/rpc/convert.h"
#include "transport/rpc/serving.h"
#include "transport/socket_address.h"

namespace chainpump::transport::rpc {
namespace {

constexpr size_t kLabelsMax = 64;
constexpr size_t kCoresMax = 4096;

bool is_rate(double value) { return std::isfinite(value) && value >= 0; }

bool is_numeric(const std::string& address) { return parse_socket_address(address).ok(); }

}  // namespace

Status check(const NodeInfo& node, const std::string& name) {
  const auto wrong = [&](const std::string& what) {
    return make_error(ErrorCode::invalid_argument, "node '{}' {}", name, what);
  };
  if (node.name != name) return wrong(fmt::format("says that it is '{}'", node.name));
  if (node.labels.size() > kLabelsMax ||
      !std::all_of(node.labels.begin(), node.labels.end(),
                   [](const std::string& label) { return is_certificate_name(label); }))
    return wrong("has labels that are none: at most 64, of 1 to 40 letters, digits, '-' or '_'");
  if (!is_numeric(node.agent)) return wrong("has an agent at no numeric address");
  if (!is_numeric(node.weights)) return wrong("serves weights at no numeric address");
  if (!node.data_address.empty() && !is_numeric(node.data_address + ":1"))
    return wrong("has a data address that is not numeric");
  if (node.cores.empty() || node.cores.size() > kCoresMax ||
      !std::all_of(node.cores.begin(), node.cores.end(),
                   [](int32_t core) { return core >= 0 && core < int32_t{kCoresMax}; }))
    return wrong("has cores that make no sense");
  if (node.memory_bytes < 0 || node.read_bytes_per_s.size() > kCoresMax ||
      !std::all_of(node.read_bytes_per_s.begin(), node.read_bytes_per_s.end(), is_rate) ||
      !is_rate(node.int8_ops_per_s) || !is_rate(node.f32_ops_per_s) ||
      !is_rate(node.bf16_ops_per_s))
    return wrong("has memory or rates that make no sense");
  return ok_status();
}

struct ClusterServer::Impl {
  explicit Impl(ClusterHandler& given) : handler(given), serving("") {}
  ClusterHandler& handler;
  Serving serving;
  uint64_t last_member = 0;
};

namespace {

class ClusterApi final : public schema::Cluster::Server {
 public:
  ClusterApi(Serving& serving, ClusterHandler& handler, uint64_t member, std::string name)
      : peer_(serving), handler_(handler), member_(member), name_(std::move(name)) {}
  ~ClusterApi() noexcept {
    if (is_member_) handler_.on_leave(member_);
  }
  KJ_DISALLOW_COPY(ClusterApi);

  kj::Promise<void> hello(HelloContext context) override {
    peer_.greet(context);
    return kj::READY_NOW;
  }
  kj::Promise<void> join(JoinContext context) override {
    peer_.check(context);
    NodeInfo node;
    read(context.getParams().getNode(), node);
    if (is_member_)
      return to_exception(make_error(ErrorCode::invalid_argument, "node '{}' has joined", name_));
    Status joined = check(node, name_);
    if (joined.ok()) joined = handler_.on_join(member_, node);
    value_of(joined);
    is_member_ = true;
    return kj::READY_NOW;
  }

 private:
  Peer peer_;
  ClusterHandler& handler_;
  const uint64_t member_;
  const std::string name_;
  bool is_member_ = false;
};

}  // namespace

ClusterServer::ClusterServer(ClusterHandler& handler) : impl_(std::make_unique<Impl>(handler)) {}
ClusterServer::~ClusterServer() = default;

Status ClusterServer::run(UniqueFd listener, const Admission& admission) {
  return serve_control(
      impl_->serving, UniqueFd(), std::move(listener),
      [this](const std::optional<Identity>& peer) -> capnp::Capability::Client {
        return kj::heap<ClusterApi>(impl_->serving, impl_->handler, ++impl_->last_member,
                                    peer ? peer->name : std::string());
      },
      admission);
}

void ClusterServer::stop() {
  impl_->serving.inbox->post([impl = impl_.get()] { impl->serving.stop->fulfill(); });
}

}  // namespace chainpump::transport::rpc
