// What the conversions share. Includes the RPC library's headers: for gateway/rpc/convert*.cc only.
#pragma once

#include <capnp/blob.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "transport/rpc/loop.h"

namespace chainpump::gateway::rpc {

template <typename T>
uint32_t num(const std::vector<T>& values) {
  return static_cast<uint32_t>(values.size());
}

inline std::string text(capnp::Text::Reader in) { return std::string(in.begin(), in.size()); }
inline capnp::Text::Reader text(const std::string& in) { return {in.c_str(), in.size()}; }

/// The schema's enums count like ours; `last` is the greatest known.
template <typename Ours, typename Theirs>
Ours checked(Theirs value, Ours last) {
  if (static_cast<int>(value) > static_cast<int>(last))
    kj::throwFatalException(transport::rpc::to_exception(
        make_error(ErrorCode::invalid_argument, "unknown value {} of an enum of at most {}",
                   static_cast<int>(value), static_cast<int>(last))));
  return static_cast<Ours>(value);
}

}  // namespace chainpump::gateway::rpc
