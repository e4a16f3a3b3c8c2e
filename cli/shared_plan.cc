#include "cli/shared_plan.h"

#include <filesystem>
#include <thread>

#include "actors/succession.h"
#include "transport/rpc/service_file.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;
using actors::EtcdCompare;
using actors::EtcdValue;

constexpr Duration kReachMax = std::chrono::seconds(10);
constexpr Duration kCallMax = std::chrono::seconds(2);
constexpr std::chrono::milliseconds kTryAgainAfter{100};

/// Tried again while nobody answers, for a moment: the store may be starting, too.
template <typename Call>
auto reached(Call call) {
  const TimePoint deadline = steady_clock().now() + kReachMax;
  while (true) {
    auto result = call(steady_clock().now() + kCallMax);
    if (result.ok() || result.error().code == ErrorCode::bad_file ||
        result.error().code == ErrorCode::invalid_argument || steady_clock().now() >= deadline)
      return result;
    std::this_thread::sleep_for(kTryAgainAfter);
  }
}

}  // namespace

Result<std::unique_ptr<SharedPlan>> SharedPlan::open(const rpc::StoreSpec& store,
                                                     const std::string& name) {
  rpc::StoreSpec full = store;
  std::error_code ignored;
  for (std::string* file : {&full.authority, &full.certificate, &full.key})
    if (!file->empty()) *file = std::filesystem::absolute(*file, ignored).string();
  ASSIGN_OR_RETURN(const actors::EtcdAddress address, actors::parse_etcd_address(full.address));
  full.prefix = address.prefix + "/" + name;
  ASSIGN_OR_RETURN(actors::HttpServers servers, actors::servers_of(full));
  ASSIGN_OR_RETURN(auto client, actors::EtcdClient::create(std::move(servers)));
  return std::unique_ptr<SharedPlan>(new SharedPlan(std::move(full), std::move(client)));
}

Result<std::optional<rpc::ServiceSpec>> SharedPlan::find() const {
  ASSIGN_OR_RETURN(const EtcdValue value, reached([&](TimePoint deadline) {
                     return client_->get(keys_.plan(), deadline);
                   }));
  if (value.create_revision == 0) return std::optional<rpc::ServiceSpec>();
  ASSIGN_OR_RETURN(rpc::ServiceSpec found, rpc::service_from_bytes(value.text, keys_.plan()));
  return std::optional(std::move(found));
}

Result<rpc::ServiceSpec> SharedPlan::agree(const rpc::ServiceSpec& mine) const {
  const std::string key = keys_.plan();
  ASSIGN_OR_RETURN(const actors::EtcdOutcome outcome, reached([&](TimePoint deadline) {
                     return client_->transact(
                         {.compare = {{key, EtcdCompare::What::create_revision, 0}},
                          .change = {{key, rpc::to_bytes(mine)}},
                          .look = {key}},
                         deadline);
                   }));
  if (outcome.succeeded) return mine;
  return rpc::service_from_bytes(outcome.looked[0].text, key);
}

}  // namespace chainpump::cli
