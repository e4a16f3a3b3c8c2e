// The file that tells a service's coordinator what to bring up (ServiceSpec in
// schemas/control.capnp). Any thread.
#pragma once

#include <string>

#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::transport::rpc {

/// Makes the file, for its user alone, or replaces it as a whole. no_room.
Status write_service_file(const std::string& path, const ServiceSpec& spec);

/// not_found; bad_file: larger than a message may be, cut short, or not such a file.
Result<ServiceSpec> read_service_file(const std::string& path);

}  // namespace chainpump::transport::rpc
