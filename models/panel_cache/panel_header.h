// The head of a file of repacked weights. Little-endian:
//
//   offset size
//        0    8  "CHPANEL1"
//        8   16  key: what the panels are (model, section, shapes, layout); low, high
//       24   16  raw: content of the section's tensors in the model file
//       40   16  data: content of the panels
//       56    8  bytes of the panels, from offset 4096 to the file's end
//       64    8  XXH3 (low half of 128 bits) of [0, 64)
//       72   40  source: device, inode, bytes, modified_ns, changed_ns of the model file when `raw`
//                was computed from it; all zero: unknown
//      112    8  XXH3 of [72, 112)
//      120 3976  zero
//
// The source may be rewritten in place (its checksum covers that): it only saves reading the model
// file again. All else never changes once the file has its name. Pure; any thread.
#pragma once

#include <array>
#include <span>

#include "base/mapped_file.h"
#include "base/result.h"
#include "models/panel_cache/content_hash.h"

namespace chainpump::models {

inline constexpr size_t kPanelHeaderBytes = 4096;
inline constexpr size_t kPanelSourceOffset = 72;

struct PanelHeader {
  ContentHash key;
  ContentHash raw;
  ContentHash data;
  uint64_t data_bytes = 0;
  FileIdentity source;
};

std::vector<std::byte> encode(const PanelHeader& header);
/// The 48 bytes at kPanelSourceOffset.
std::vector<std::byte> encode_source(const FileIdentity& source);

/// bad_file saying what is wrong. A damaged source is not: it reads as unknown.
Result<PanelHeader> decode_panel_header(std::span<const std::byte> bytes);

}  // namespace chainpump::models
