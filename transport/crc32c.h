// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78, as in RFC 3720) of frames: of every header,
// and of metadata and payload where a link asks for it. It stands on the data path, so it runs
// three interleaved chains of the processor's crc32 instruction where there is one (SSE4.2,
// PCLMULQDQ; chosen once, at run time), else a table. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace chainpump::transport {

/// The checksum of `bytes`, continuing from `crc` (0 at the start): crc32c(b, crc32c(a)) is the
/// checksum of a followed by b. "123456789" gives 0xE3069283.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);

/// The same by table, byte by byte: the meaning of correct, and the fallback.
uint32_t crc32c_reference(std::span<const std::byte> bytes, uint32_t crc = 0);

}  // namespace chainpump::transport
