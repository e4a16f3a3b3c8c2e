#include "models/panel_cache/content_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <atomic>

namespace chainpump::models {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // stays in a core's cache between fetch and hash

std::vector<ContentPiece> pieces_of(std::span<const std::span<const std::byte>> parts) {
  std::vector<ContentPiece> pieces;
  uint64_t offset = 0;
  for (size_t part = 0; part < parts.size(); ++part) {
    for (size_t begin = 0; begin < parts[part].size(); begin += kPieceBytes) {
      const size_t bytes = std::min(kPieceBytes, parts[part].size() - begin);
      pieces.push_back({part, begin, bytes, offset});
      offset += bytes;
    }
  }
  return pieces;
}

}  // namespace

ContentHash hash_of(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

std::optional<ContentHash> hash_parts(kernels::cpu::Team& team,
                                      std::span<const std::span<const std::byte>> parts,
                                      const std::function<bool(const ContentPiece&)>& fetch) {
  const std::vector<ContentPiece> pieces = pieces_of(parts);
  std::vector<ContentHash> hashes(pieces.size());
  std::atomic<bool> failed{false};
  team.run([&](kernels::cpu::TeamMember& member) {
    const kernels::cpu::Range mine = share_of(member, static_cast<int64_t>(pieces.size()), 1);
    for (auto i = static_cast<size_t>(mine.begin); i < static_cast<size_t>(mine.end); ++i) {
      const ContentPiece& piece = pieces[i];
      if (failed || (fetch && !fetch(piece))) {
        failed = true;
        return;
      }
      hashes[i] = hash_of(parts[piece.part].subspan(piece.begin, piece.bytes));
    }
  });
  if (failed) return std::nullopt;
  return hash_of(std::as_bytes(std::span(hashes)));
}

}  // namespace chainpump::models
