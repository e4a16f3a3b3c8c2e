// The exit statuses that scripts rely on. Pure; any thread.
#pragma once

#include "base/result.h"

namespace chainpump::cli {

/// 2 usage, 3 a bad or missing file, 4 not enough room, 5 a failure at run time.
constexpr int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::unimplemented:
      return 2;
    case ErrorCode::bad_file:
    case ErrorCode::not_found:
      return 3;
    case ErrorCode::no_room:
      return 4;
    case ErrorCode::overloaded:
    case ErrorCode::disconnected:
    case ErrorCode::deadline_exceeded:
    case ErrorCode::cancelled:
    case ErrorCode::internal:
      return 5;
  }
  return 5;
}

}  // namespace chainpump::cli
