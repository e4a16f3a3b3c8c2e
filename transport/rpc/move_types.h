// What the calls of a move carry, as plain C++: a literal mirror of schemas/move.capnp, where the
// meaning of each field stands. Plain data, any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace chainpump::transport::rpc {

struct KvCopy {
  uint32_t epoch = 1;
  uint32_t incarnation = 1;
  uint64_t secret = 0;
  int32_t layer_begin = 0;
  int32_t layer_end = 0;
  std::string address;
  uint16_t port = 0;
  std::vector<uint8_t> lanes = {};
  uint32_t part = 0;
  uint32_t parts = 1;
  int32_t context_tokens = 0;
};

/// Where a rank takes copies in; empty within one process.
struct KvAddress {
  std::string address;
  uint16_t port = 0;
};

enum class MoveStep : uint8_t { starting, copying, switching };

struct MoveProgress {
  MoveStep step = MoveStep::starting;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
};

using OnMoveProgress = std::function<void(const MoveProgress&)>;

}  // namespace chainpump::transport::rpc
