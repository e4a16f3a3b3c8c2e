// The files by which a service's processes know what to bring up, and on which nodes it can be
// (ServiceSpec and NodeList in schemas/control.capnp). Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::transport::rpc {

/// Makes the file, for its user alone, or replaces it as a whole. no_room.
Status write_service_file(const std::string& path, const ServiceSpec& spec);

/// not_found; bad_file: larger than a message may be, cut short, or not such a file.
Result<ServiceSpec> read_service_file(const std::string& path);

/// What such a file is, and what it says; `where` it is from.
std::string to_bytes(const ServiceSpec& spec);
Result<ServiceSpec> service_from_bytes(const std::string& bytes, const std::string& where);

/// The same of the nodes that have joined.
Status write_nodes_file(const std::string& path, const std::vector<NodeInfo>& nodes);
Result<std::vector<NodeInfo>> read_nodes_file(const std::string& path);

}  // namespace chainpump::transport::rpc
