// The plan of a service in its folder: `plan` says what is in force; while another is being taken
// over, that stands beside it under its number. One thread, the coordinator's.
#pragma once

#include <string>

#include "actors/coordinator.h"

namespace chainpump::actors {

class PlanFolder final : public PlanFiles {
 public:
  /// `spec`: what `plan` says.
  PlanFolder(std::string folder, const rpc::ServiceSpec& spec)
      : folder_(std::move(folder)), spec_(spec) {}

  Status prepare(const rpc::ServiceSpec& spec) override;
  Status take(uint32_t number) override;
  /// That of this number: `plan`, or what was prepared by a coordinator that died before take().
  /// bad_file: it is neither.
  Result<rpc::ServiceSpec> find(uint32_t number);

 private:
  const std::string folder_;
  rpc::ServiceSpec spec_;
};

}  // namespace chainpump::actors
