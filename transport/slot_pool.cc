#include "transport/slot_pool.h"

#include <sys/mman.h>

#include <cstring>

#include "base/check.h"

namespace chainpump::transport {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t round_up(size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

SlotPool::SlotPool(int32_t num_slots, int64_t metadata_bytes_max, int64_t payload_bytes_max)
    : metadata_bytes_max_(metadata_bytes_max), payload_bytes_max_(payload_bytes_max) {
  CHECK_GT(num_slots, 0);
  CHECK_GE(metadata_bytes_max, 0);
  CHECK_GE(payload_bytes_max, 0);
  payload_offset_ = kFrameHeaderBytes + round_up(static_cast<size_t>(metadata_bytes_max));
  stride_ = payload_offset_ + round_up(static_cast<size_t>(payload_bytes_max));
  memory_bytes_ = stride_ * static_cast<size_t>(num_slots);
  void* memory =
      mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK_MSG(memory != MAP_FAILED, "no memory for {} slots of {} bytes", num_slots, stride_);
  memory_ = static_cast<std::byte*>(memory);
  // Large pages where there are any: the kernel copies payloads out of them with fewer look-ups.
  madvise(memory, memory_bytes_, MADV_HUGEPAGE);
  std::memset(memory, 0, memory_bytes_);
  in_use_.resize(static_cast<size_t>(num_slots));
  for (int32_t slot = num_slots - 1; slot >= 0; --slot) free_.push_back(slot);
}

SlotPool::~SlotPool() { munmap(memory_, memory_bytes_); }

std::optional<int32_t> SlotPool::take() {
  if (free_.empty()) return std::nullopt;
  const int32_t slot = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(slot)] = true;
  return slot;
}

void SlotPool::put_back(int32_t slot) {
  CHECK_GE(slot, 0);
  CHECK_LT(slot, num_slots());
  CHECK_MSG(in_use_[static_cast<size_t>(slot)], "slot {} given back twice", slot);
  in_use_[static_cast<size_t>(slot)] = false;
  free_.push_back(slot);
}

std::byte* SlotPool::payload_begin(int32_t slot) {
  CHECK_GE(slot, 0);
  CHECK_LT(slot, num_slots());
  return memory_ + stride_ * static_cast<size_t>(slot) + payload_offset_;
}

std::span<std::byte> SlotPool::payload(int32_t slot) {
  return {payload_begin(slot), static_cast<size_t>(payload_bytes_max_)};
}

std::span<std::byte> SlotPool::metadata(int32_t slot, uint32_t metadata_bytes) {
  return body(slot, metadata_bytes, 0);
}

std::span<std::byte> SlotPool::body(int32_t slot, uint32_t metadata_bytes, uint32_t payload_bytes) {
  CHECK_LE(int64_t{metadata_bytes}, metadata_bytes_max_);
  CHECK_LE(int64_t{payload_bytes}, payload_bytes_max_);
  return {payload_begin(slot) - metadata_bytes, size_t{metadata_bytes} + payload_bytes};
}

std::span<std::byte, kFrameHeaderBytes> SlotPool::header(int32_t slot, uint32_t metadata_bytes) {
  CHECK_LE(int64_t{metadata_bytes}, metadata_bytes_max_);
  return std::span<std::byte, kFrameHeaderBytes>(
      payload_begin(slot) - metadata_bytes - kFrameHeaderBytes, kFrameHeaderBytes);
}

}  // namespace chainpump::transport
