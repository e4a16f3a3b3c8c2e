// What a weights file holds, piece by piece, so that a node that lacks the file can fetch its share
// and check every piece of it. Pieces are at most a MiB: of the head (everything before the first
// tensor's data), and then of each tensor in the file's order; padding between tensors is none's.
//
// A manifest is made by reading the whole file, once: it is remembered for the file's identity
// (weight_store.h), as repacked weights are (models/panel_cache). Its own hash, with the file's
// size and fingerprint, is the model's identity. Format, little-endian:
//
//   offset size
//        0    8  "CHWEIGH1"
//        8    8  bytes of the file
//       16    8  bytes of its head
//       24    8  fingerprint (models/fingerprint.h)
//       32    4  S, bytes of the samples that the fingerprint is made from
//       36    4  N, number of pieces
//       40    S  samples: of tensors that a share need not hold
//     40+S  16N  hash of each piece (models/panel_cache/content_hash.h): low, high
//
// The hashes tell contents apart by chance never; they prove nothing against a node that forges.
// Pure but for make_manifest(); any thread.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "graph/plan.h"
#include "models/gguf/gguf.h"
#include "models/panel_cache/content_hash.h"

namespace chainpump::models {

inline constexpr uint64_t kWeightPieceBytes = uint64_t{1} << 20;
/// Of a file whose manifest fits into a message: 2 TiB.
inline constexpr uint64_t kWeightPiecesMax = uint64_t{1} << 21;

struct WeightPiece {
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
  bool operator==(const WeightPiece&) const = default;
};

/// Where the pieces of a file lie.
class WeightTable {
 public:
  /// `bytes`: what `file` was parsed from.
  WeightTable(std::span<const std::byte> bytes, const GgufFile& file);
  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  uint64_t head_bytes() const { return head_bytes_; }
  /// The head's, and those of the tensors; in order.
  std::vector<uint32_t> share(std::span<const GgufTensor* const> tensors) const;

 private:
  void add(uint64_t offset, uint64_t bytes);

  const GgufTensor* first_ = nullptr;  // of the file's
  uint64_t head_bytes_ = 0;
  std::vector<WeightPiece> pieces_;
  std::vector<uint32_t> first_of_;  // piece of each tensor; and the end
};

/// Of a head alone.
std::vector<WeightPiece> head_pieces(uint64_t head_bytes);

struct Manifest {
  uint64_t bytes = 0;
  uint64_t head_bytes = 0;
  uint64_t fingerprint = 0;
  std::vector<std::byte> samples;
  std::vector<ContentHash> hashes;  // by piece
  bool operator==(const Manifest&) const = default;
};

std::vector<std::byte> encode(const Manifest& manifest);
/// bad_file saying what is wrong.
Result<Manifest> decode_manifest(std::span<const std::byte> bytes);
/// Of the file that it is of.
graph::ModelIdentity identity_of(const Manifest& manifest);

/// Reads the whole file. not_found, bad_file; cancelled: it changed meanwhile.
Result<Manifest> make_manifest(const std::filesystem::path& path,
                               const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace chainpump::models
