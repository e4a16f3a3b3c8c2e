#include "cli/service_pool.h"

#include "cli/client.h"

namespace chainpump::cli {
namespace {

constexpr size_t kRequestsOfOne = 60;  // a service admits 64 of a connection
static_assert(ServicePool::kRequestsMax % kRequestsOfOne == 0);

}  // namespace

Result<ServicePool> ServicePool::open(const DeployOptions& options) {
  ServicePool pool;
  ASSIGN_OR_RETURN(OpenService opened, open_named_service(options));
  pool.socket_ = std::move(opened.socket);
  pool.services_.push_back(std::move(opened.service));
  return pool;
}

Status ServicePool::make_room(size_t count) {
  CHECK_LE(count, kRequestsMax);
  if (socket_.empty()) return ok_status();
  while (services_.size() * kRequestsOfOne < count) {
    ASSIGN_OR_RETURN(auto more, connect_to_service(socket_));
    services_.push_back(std::move(more));
  }
  return ok_status();
}

}  // namespace chainpump::cli
