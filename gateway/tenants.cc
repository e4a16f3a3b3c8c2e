#include "gateway/tenants.h"

#include <algorithm>
#include <span>

#include "graph/diagnostics.h"
#include "models/panel_cache/content_hash.h"

namespace chainpump::gateway {
namespace {

bool is_tenant_name(const std::string& name) {
  const auto belongs = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '@';
  };
  return name.size() <= kTenantNameBytesMax && std::all_of(name.begin(), name.end(), belongs);
}

}  // namespace

Result<Tenant> Tenants::find(const std::string& name) {
  if (name.empty()) return Tenant{};
  if (!is_tenant_name(name))
    return make_error(ErrorCode::invalid_argument,
                      "tenant '{}' must be at most {} letters, digits, '-', '_', '.' or '@'",
                      graph::shown(name), kTenantNameBytesMax);
  {
    const std::lock_guard lock(mutex_);
    if (!names_.contains(name)) {
      if (names_.size() == kTenantsMax)
        return make_error(ErrorCode::overloaded, "there are {} tenants already, and no more",
                          kTenantsMax);
      names_.insert(name);
    }
  }
  const models::ContentHash hash = models::hash_of(std::as_bytes(std::span(name)));
  return Tenant{.id = graph::TenantId(static_cast<uint32_t>(hash.high)), .cache_salt = hash.low};
}

}  // namespace chainpump::gateway
