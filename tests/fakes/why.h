// For assertions that print why a Result is an error; Boost builds the message even on success.
#pragma once

#include <string>

#include "base/result.h"

namespace chainpump::fakes {

template <typename T>
std::string why(const Result<T>& result) {
  return result.ok() ? "ok" : result.error().message;
}

}  // namespace chainpump::fakes
