// Manifests of files that are here as a whole, remembered for the files' identities.
#include <fcntl.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/byte_io.h"
#include "base/file_io.h"
#include "base/mapped_file.h"
#include "base/own_folder.h"
#include "models/weights/weight_store.h"

namespace chainpump::models {
namespace {

constexpr size_t kIdentityBytes = 40;
constexpr size_t kSumBytes = 8;
constexpr uintmax_t kBytesMax = uintmax_t{64} << 20;

std::vector<std::byte> encode(const FileIdentity& file) {
  std::vector<std::byte> out;
  ByteWriter writer(out);
  writer.write(file.device);
  writer.write(file.inode);
  writer.write(file.bytes);
  writer.write(file.modified_ns);
  writer.write(file.changed_ns);
  CHECK_EQ(out.size(), kIdentityBytes);
  return out;
}

std::filesystem::path place_of(const std::filesystem::path& folder, const FileIdentity& file) {
  return folder / fmt::format("of-{:016x}.manifest", hash_of(encode(file)).low);
}

std::optional<Manifest> recall(const std::filesystem::path& place, const FileIdentity& file) {
  struct stat st {};
  const UniqueFd fd(::open(place.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) || !is_own(st) ||
      static_cast<uintmax_t>(st.st_size) > kBytesMax ||
      static_cast<size_t>(st.st_size) < kIdentityBytes + kSumBytes)
    return std::nullopt;
  std::vector<std::byte> bytes(static_cast<size_t>(st.st_size));
  if (!read_whole(fd.get(), bytes, 0)) return std::nullopt;
  const auto said = std::span<const std::byte>(bytes).first(bytes.size() - kSumBytes);
  ByteReader sum{std::span<const std::byte>(bytes).last(kSumBytes)};
  const std::vector<std::byte> own = encode(file);
  if (sum.read<uint64_t>() != hash_of(said).low ||
      !std::equal(own.begin(), own.end(), said.begin()))
    return std::nullopt;
  Result<Manifest> manifest = decode_manifest(said.subspan(kIdentityBytes));
  if (!manifest.ok()) return std::nullopt;
  return std::move(*manifest);
}

/// Nothing here fails: the file is then read again next time.
void remember(const std::filesystem::path& place, const FileIdentity& file,
              const Manifest& manifest) {
  if (!open_own_folder(place.parent_path()).ok()) return;
  std::vector<std::byte> bytes = encode(file);
  ByteWriter writer(bytes);
  writer.write_bytes(encode(manifest));
  writer.write(hash_of(bytes).low);
  Result<AtomicFile> out =
      AtomicFile::create(place, static_cast<int64_t>(bytes.size()), /*replace=*/true);
  if (out.ok() && out->write(bytes).ok()) static_cast<void>(out->commit());
}

}  // namespace

Result<Manifest> manifest_of(const std::filesystem::path& path, const std::filesystem::path& folder,
                             const std::function<void(int64_t, int64_t)>& progress,
                             int64_t settle_ns) {
  const FileIdentity opened = file_identity(path).value_or(FileIdentity{});
  const FileIdentity settled = settled_identity(path, opened, settle_ns);
  const bool can_be_remembered = settled != FileIdentity{} && !folder.empty();
  if (can_be_remembered)
    if (std::optional<Manifest> known = recall(place_of(folder, settled), settled))
      return *std::move(known);
  ASSIGN_OR_RETURN(Manifest manifest, make_manifest(path, progress));
  if (can_be_remembered && file_identity(path) == settled)
    remember(place_of(folder, settled), settled, manifest);
  return manifest;
}

}  // namespace chainpump::models
