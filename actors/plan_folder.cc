#include "actors/plan_folder.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "actors/service_folder.h"
#include "transport/rpc/service_file.h"

namespace chainpump::actors {

Status PlanFolder::prepare(const rpc::ServiceSpec& spec) {
  rpc::ServiceSpec whole = spec_;
  whole.plan = spec.plan;
  whole.spin_between_ops = spec.spin_between_ops;
  whole.graph = spec.graph;
  whole.graph_text = spec.graph_text;
  whole.number = spec.number;
  return rpc::write_service_file(plan_file(folder_, spec.number), whole);
}

Status PlanFolder::take(uint32_t number) {
  if (std::rename(plan_file(folder_, number).c_str(), plan_file(folder_).c_str()) == 0)
    return ok_status();
  return make_error(ErrorCode::internal, "the plan of {} cannot be put in force: {}", folder_,
                    std::strerror(errno));
}

Result<rpc::ServiceSpec> PlanFolder::find(uint32_t number) {
  if (spec_.number == number) return spec_;
  RETURN_IF_ERROR(take(number));
  ASSIGN_OR_RETURN(spec_, rpc::read_service_file(plan_file(folder_)));
  if (spec_.number == number) return spec_;
  return make_error(ErrorCode::bad_file, "{}: the plan of change {} is not there", folder_, number);
}

}  // namespace chainpump::actors
