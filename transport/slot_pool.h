// The buffers of one end of a link: a fixed number of slots, allocated once. In a slot the frame
// lies in one piece, so that one message carries all of it without a copy:
//
//   | ... unused | header (64) | metadata | payload ... |
//                                         ^ fixed place in the slot, 64-byte aligned
//
// Metadata ends where the payload begins, whatever its length. One thread at a time (in-process
// links hand slots between their threads under a lock).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "transport/frame.h"

namespace chainpump::transport {

class SlotPool {
 public:
  /// The memory is touched here, once; no page fault waits on the data path.
  SlotPool(int32_t num_slots, int64_t metadata_bytes_max, int64_t payload_bytes_max);
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;
  ~SlotPool();

  int32_t num_slots() const { return static_cast<int32_t>(in_use_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

  /// The index of a free slot, or none.
  std::optional<int32_t> take();
  /// Gives a taken slot back.
  void put_back(int32_t slot);

  /// All payload_bytes_max bytes.
  std::span<std::byte> payload(int32_t slot);
  /// The `metadata_bytes` before the payload.
  std::span<std::byte> metadata(int32_t slot, uint32_t metadata_bytes);
  /// Metadata and payload in one piece.
  std::span<std::byte> body(int32_t slot, uint32_t metadata_bytes, uint32_t payload_bytes);
  /// The header before a metadata section of that length.
  std::span<std::byte, kFrameHeaderBytes> header(int32_t slot, uint32_t metadata_bytes);

  /// The whole memory, for registration with the network.
  std::span<std::byte> memory() { return {memory_, memory_bytes_}; }

 private:
  std::byte* payload_begin(int32_t slot);

  int64_t metadata_bytes_max_;
  int64_t payload_bytes_max_;
  size_t payload_offset_;
  size_t stride_;
  size_t memory_bytes_;
  std::byte* memory_ = nullptr;
  std::vector<int32_t> free_;
  std::vector<bool> in_use_;
};

}  // namespace chainpump::transport
