// Who shares a service: each tenant takes its turn by what it has been served (graph/fair_queue.h),
// and sees no other's cached prefixes. A tenant is a name; what the engine knows it by follows from
// the name alone, so that it is the same at every gateway. Any thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>

#include "base/result.h"
#include "graph/fair_queue.h"

namespace chainpump::gateway {

inline constexpr size_t kTenantNameBytesMax = 64;
inline constexpr size_t kTenantsMax = 256;  // in the life of a gateway: the engine forgets none

struct Tenant {
  graph::TenantId id;
  uint64_t cache_salt = 0;
  bool operator==(const Tenant&) const = default;
};

class Tenants {
 public:
  /// The empty name is a tenant, too. invalid_argument: no name; overloaded: one too many.
  Result<Tenant> find(const std::string& name);

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
};

}  // namespace chainpump::gateway
