#include "models/weights/weight_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/atomic_file.h"
#include "base/file_io.h"
#include "base/mapped_file.h"
#include "base/own_folder.h"
#include "models/panel_cache/room.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kDataEnd = ".gguf";
constexpr std::string_view kHaveEnd = ".have";
constexpr std::string_view kManifestEnd = ".manifest";
constexpr double kShareOfFree = 0.9;
constexpr int64_t kManifestBytesMax = int64_t{64} << 20;

Result<std::vector<std::byte>> read_small(int folder_fd, const std::string& name) {
  const UniqueFd fd(::openat(folder_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  struct stat st {};
  if (!fd.valid() || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) || !is_own(st) ||
      st.st_size > kManifestBytesMax)
    return make_error(ErrorCode::not_found, "{}: no file of ours", name);
  std::vector<std::byte> bytes(static_cast<size_t>(st.st_size));
  if (!read_whole(fd.get(), bytes, 0)) return make_error(ErrorCode::bad_file, "{}: is cut", name);
  return bytes;
}

Status write_small(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(AtomicFile file,
                   AtomicFile::create(path, static_cast<int64_t>(bytes.size()), /*replace=*/true));
  RETURN_IF_ERROR(file.write(bytes));
  return file.commit();
}

}  // namespace

std::string content_name(const graph::ModelIdentity& model) {
  return fmt::format("{:016x}{:016x}", model.content_high, model.content_low);
}

WeightStore::WeightStore(WeightStoreOptions options, graph::ModelIdentity model, UniqueFd folder)
    : options_(std::move(options)),
      model_(model),
      name_(content_name(model)),
      path_(options_.folder / (name_ + std::string(kDataEnd))),
      folder_(std::move(folder)) {}

Error WeightStore::failed(const char* what, int error) const {
  const bool is_full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return make_error(is_full ? ErrorCode::no_room : ErrorCode::bad_file,
                    "{}: fetched weights cannot be {}: {}", path_.string(), what,
                    std::strerror(error));
}

Status WeightStore::open_files(int flags) {
  const auto open_file = [&](std::string_view end) {
    return UniqueFd(::openat(folder_.get(), (name_ + std::string(end)).c_str(),
                             flags | O_NOFOLLOW | O_CLOEXEC, 0600));
  };
  data_ = open_file(kDataEnd);
  if (data_.valid()) have_ = open_file(kHaveEnd);
  for (const UniqueFd* fd : {&data_, &have_}) {
    struct stat st {};
    if (!fd->valid() || ::fstat(fd->get(), &st) != 0) {
      const int error = errno;
      if (error == ENOENT) return make_error(ErrorCode::not_found, "{}: not here", path_.string());
      return failed("opened", error);
    }
    if (!S_ISREG(st.st_mode) || !is_own(st))
      return make_error(ErrorCode::bad_file, "{}: not a file of this user alone", path_.string());
  }
  return ok_status();
}

Result<WeightStore> WeightStore::open(const WeightStoreOptions& options,
                                      const graph::ModelIdentity& model) {
  Result<UniqueFd> folder = open_own_folder(options.folder);
  if (!folder.ok())
    return make_error(folder.error().code, "{}: {}", options.folder.string(),
                      folder.error().message);
  WeightStore store(options, model, std::move(*folder));
  // Marks without the data that they are of would lie: they go before a new file is made.
  struct stat st {};
  if (::fstatat(store.folder_.get(), store.path_.filename().c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
    static_cast<void>(
        ::unlinkat(store.folder_.get(), (store.name_ + std::string(kHaveEnd)).c_str(), 0));
  RETURN_IF_ERROR(store.open_files(O_RDWR | O_CREAT));
  if (::ftruncate(store.data_.get(), static_cast<off_t>(model.bytes)) != 0)
    return store.failed("made", errno);
  store.touch();
  return store;
}

Result<WeightStore> WeightStore::find(const std::filesystem::path& folder,
                                      const graph::ModelIdentity& model) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return make_error(ErrorCode::not_found, "{}: not here", folder.string());
  WeightStore store({.folder = folder}, model, std::move(fd));
  RETURN_IF_ERROR(store.open_files(O_RDONLY));
  return store;
}

std::optional<std::vector<std::byte>> WeightStore::manifest() const {
  Result<std::vector<std::byte>> bytes =
      read_small(folder_.get(), name_ + std::string(kManifestEnd));
  if (!bytes.ok()) return std::nullopt;
  const Result<Manifest> manifest = decode_manifest(*bytes);
  if (!manifest.ok() || identity_of(*manifest) != model_) return std::nullopt;
  return std::move(*bytes);
}

Status WeightStore::keep_manifest(std::span<const std::byte> encoded) {
  return write_small(options_.folder / (name_ + std::string(kManifestEnd)), encoded);
}

bool WeightStore::has(uint32_t piece) const {
  uint8_t mark = 0;
  return read_whole(have_.get(), std::as_writable_bytes(std::span(&mark, 1)), piece) && mark == 1;
}

bool WeightStore::has_head() const {
  const std::optional<std::vector<std::byte>> encoded = manifest();
  if (!encoded) return false;
  const auto num_pieces = head_pieces(decode_manifest(*encoded)->head_bytes).size();
  for (uint32_t i = 0; i < num_pieces; ++i)
    if (!has(i)) return false;
  return true;
}

Status WeightStore::reserve(uint64_t bytes) {
  const auto needed = static_cast<int64_t>(bytes);
  const bool has_room = make_room(folder_.get(), name_, needed,
                                  {.file_end = kDataEnd,
                                   .with = {kHaveEnd, kManifestEnd},
                                   .limit_bytes = options_.limit_bytes,
                                   .share_of_free = kShareOfFree});
  if (has_room) return ok_status();
  struct statvfs disk {};
  static_cast<void>(::fstatvfs(folder_.get(), &disk));
  return make_error(ErrorCode::no_room,
                    "{}: {} bytes of weights are to be fetched, and the disk has {} free, of which "
                    "a tenth stays so",
                    options_.folder.string(), bytes, uint64_t{disk.f_bavail} * disk.f_frsize);
}

Status WeightStore::write(uint32_t index, const WeightPiece& piece,
                          std::span<const std::byte> bytes) {
  CHECK_EQ(bytes.size(), piece.bytes);
  RETURN_IF_ERROR(write_at(piece.offset, bytes));
  written_.push_back(index);
  return ok_status();
}

Status WeightStore::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  if (!write_whole(data_.get(), bytes, offset)) return failed("written", errno);
  return ok_status();
}

Status WeightStore::read(const WeightPiece& piece, std::span<std::byte> bytes) const {
  CHECK_EQ(bytes.size(), piece.bytes);
  if (!read_whole(data_.get(), bytes, piece.offset)) return failed("read", errno);
  return ok_status();
}

Status WeightStore::sync() {
  if (::fdatasync(data_.get()) != 0) return failed("written", errno);
  const uint8_t mark = 1;
  for (const uint32_t index : written_)
    if (!write_whole(have_.get(), std::as_bytes(std::span(&mark, 1)), index))
      return failed("marked", errno);
  written_.clear();
  return ok_status();
}

void WeightStore::touch() {
  const timespec used[2] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW},
                            {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
  static_cast<void>(::futimens(data_.get(), used));
}

}  // namespace chainpump::models
