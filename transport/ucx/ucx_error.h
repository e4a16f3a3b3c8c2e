// The wall's translation of UCX's status codes into our errors. Any thread.
#pragma once

#include <ucs/type/status.h>

#include <string_view>

#include "base/result.h"

namespace chainpump::transport {

/// What a failed call means for the caller: a peer that is gone is disconnected, memory that is not
/// there is no_room, anything else that UCX says is internal.
inline Error ucx_error(std::string_view call, ucs_status_t status) {
  ErrorCode code = ErrorCode::internal;
  if (status == UCS_ERR_UNREACHABLE || status == UCS_ERR_CONNECTION_RESET ||
      status == UCS_ERR_NOT_CONNECTED || status == UCS_ERR_REJECTED ||
      status == UCS_ERR_ENDPOINT_TIMEOUT || status == UCS_ERR_TIMED_OUT) {
    code = ErrorCode::disconnected;
  }
  if (status == UCS_ERR_NO_MEMORY || status == UCS_ERR_SHMEM_SEGMENT) code = ErrorCode::no_room;
  return make_error(code, "{}: {}", call, ucs_status_string(status));
}

}  // namespace chainpump::transport
