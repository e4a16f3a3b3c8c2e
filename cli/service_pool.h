// A service with as many connections as it takes to have many requests under way: a service admits
// a limited number of each connection. One thread for opening; of() from any.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/deploy.h"
#include "gateway/service.h"

namespace chainpump::cli {

class ServicePool {
 public:
  static constexpr size_t kRequestsMax = 960;

  /// As open_service(), with one connection.
  static Result<ServicePool> open(const DeployOptions& options);

  gateway::Service& first() { return *services_.front(); }
  /// Connects so often that `count` requests (at most kRequestsMax) may be under way.
  Status make_room(size_t count);
  /// Whom the request in this place asks, of those that make_room() made room for.
  gateway::Service& of(size_t place) { return *services_[place % services_.size()]; }

 private:
  std::string socket_;  // empty: the service is this process's own
  std::vector<std::unique_ptr<gateway::Service>> services_;
};

}  // namespace chainpump::cli
