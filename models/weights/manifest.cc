#include "models/weights/manifest.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/byte_io.h"
#include "base/file_io.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "models/fingerprint.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kMagic = "CHWEIGH1";
constexpr size_t kFixedBytes = 40;
constexpr size_t kSamplesMax = size_t{64} << 10;

}  // namespace

std::vector<WeightPiece> head_pieces(uint64_t head_bytes) {
  std::vector<WeightPiece> pieces;
  for (uint64_t begin = 0; begin < head_bytes; begin += kWeightPieceBytes)
    pieces.push_back({begin, std::min(kWeightPieceBytes, head_bytes - begin)});
  return pieces;
}

WeightTable::WeightTable(std::span<const std::byte> bytes, const GgufFile& file)
    : head_bytes_(models::head_bytes(bytes, file)), pieces_(head_pieces(head_bytes_)) {
  if (!file.tensors().empty()) first_ = &file.tensors().front();
  for (const GgufTensor& tensor : file.tensors()) {
    first_of_.push_back(static_cast<uint32_t>(pieces_.size()));
    add(tensor.file_offset, tensor.bytes.size());
  }
  first_of_.push_back(static_cast<uint32_t>(pieces_.size()));
}

void WeightTable::add(uint64_t offset, uint64_t bytes) {
  for (uint64_t begin = 0; begin < bytes; begin += kWeightPieceBytes)
    pieces_.push_back({offset + begin, std::min(kWeightPieceBytes, bytes - begin)});
}

std::vector<uint32_t> WeightTable::share(std::span<const GgufTensor* const> tensors) const {
  std::vector<uint32_t> share;
  const auto take = [&](uint32_t begin, uint32_t end) {
    for (uint32_t i = begin; i < end; ++i) share.push_back(i);
  };
  take(0, first_of_.front());
  for (const GgufTensor* tensor : tensors) {
    const auto index = static_cast<size_t>(tensor - first_);
    take(first_of_[index], first_of_[index + 1]);
  }
  std::sort(share.begin(), share.end());
  share.erase(std::unique(share.begin(), share.end()), share.end());
  return share;
}

std::vector<std::byte> encode(const Manifest& manifest) {
  std::vector<std::byte> out;
  out.reserve(kFixedBytes + manifest.samples.size() + 16 * manifest.hashes.size());
  ByteWriter writer(out);
  writer.write_string(kMagic);
  writer.write(manifest.bytes);
  writer.write(manifest.head_bytes);
  writer.write(manifest.fingerprint);
  writer.write(static_cast<uint32_t>(manifest.samples.size()));
  writer.write(static_cast<uint32_t>(manifest.hashes.size()));
  writer.write_bytes(manifest.samples);
  for (const ContentHash& hash : manifest.hashes) {
    writer.write(hash.low);
    writer.write(hash.high);
  }
  return out;
}

Result<Manifest> decode_manifest(std::span<const std::byte> bytes) {
  const auto refuse = [](const char* what) {
    return make_error(ErrorCode::bad_file, "the manifest of a weights file {}", what);
  };
  if (bytes.size() < kFixedBytes) return refuse("is too short");
  ByteReader reader(bytes);
  if (reader.take_string(kMagic.size()) != kMagic) return refuse("is none");
  Manifest manifest;
  manifest.bytes = reader.read<uint64_t>();
  manifest.head_bytes = reader.read<uint64_t>();
  manifest.fingerprint = reader.read<uint64_t>();
  const auto num_sampled = size_t{reader.read<uint32_t>()};
  const auto num_pieces = size_t{reader.read<uint32_t>()};
  if (num_sampled > kSamplesMax || num_pieces > kWeightPiecesMax ||
      bytes.size() != kFixedBytes + num_sampled + 16 * num_pieces)
    return refuse("has another length than it says");
  if (manifest.head_bytes == 0 || manifest.head_bytes > manifest.bytes ||
      manifest.bytes > kWeightPiecesMax * kWeightPieceBytes ||
      (manifest.head_bytes - 1) / kWeightPieceBytes >= num_pieces)
    return refuse("has sizes that make no sense");
  const auto samples = bytes.subspan(kFixedBytes, num_sampled);
  manifest.samples.assign(samples.begin(), samples.end());
  ByteReader hashes{bytes.subspan(kFixedBytes + num_sampled)};
  manifest.hashes.resize(num_pieces);
  for (ContentHash& hash : manifest.hashes) {
    hash.low = hashes.read<uint64_t>();
    hash.high = hashes.read<uint64_t>();
  }
  return manifest;
}

graph::ModelIdentity identity_of(const Manifest& manifest) {
  const ContentHash content = hash_of(encode(manifest));
  return {.bytes = manifest.bytes,
          .fingerprint = manifest.fingerprint,
          .content_low = content.low,
          .content_high = content.high};
}

Result<Manifest> make_manifest(const std::filesystem::path& path,
                               const std::function<void(int64_t, int64_t)>& progress) {
  ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(path));
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::parse(mapped.bytes(), path.string()));
  const WeightTable table(mapped.bytes(), file);
  if (table.pieces().size() > kWeightPiecesMax)
    return make_error(ErrorCode::unimplemented, "{}: too large for other nodes to fetch",
                      path.string());
  Manifest manifest{.bytes = mapped.bytes().size(),
                    .head_bytes = table.head_bytes(),
                    .fingerprint = model_fingerprint(mapped.bytes(), file),
                    .samples = {},
                    .hashes = {}};
  for (const std::span<const std::byte> sample : fingerprint_samples(file))
    manifest.samples.insert(manifest.samples.end(), sample.begin(), sample.end());
  // Read, not mapped: the kernel reads ahead, and a file that is cut short is no SIGBUS.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<std::byte> piece_bytes(kWeightPieceBytes);
  for (const WeightPiece& piece : table.pieces()) {
    const std::span<std::byte> room(piece_bytes.data(), piece.bytes);
    if (!fd.valid() || !read_whole(fd.get(), room, piece.offset))
      return make_error(ErrorCode::bad_file, "{}: cannot be read at {}", path.string(),
                        piece.offset);
    manifest.hashes.push_back(hash_of(room));
    if (progress)
      progress(static_cast<int64_t>(piece.offset + piece.bytes),
               static_cast<int64_t>(manifest.bytes));
  }
  if (file_identity(path) != mapped.identity())
    return make_error(ErrorCode::cancelled, "{}: it changed while it was read", path.string());
  return manifest;
}

}  // namespace chainpump::models
