#include "models/panel_cache/panel_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/own_folder.h"
#include "models/gguf/pages.h"
#include "models/panel_cache/room.h"

namespace chainpump::models {
namespace {

int64_t data_bytes(const PanelSection& section) {
  int64_t total = 0;
  for (const PanelPart& part : section.parts) total += part.matrix->bytes();
  return total;
}

std::vector<std::span<const std::byte>> raw_parts(const PanelSection& section) {
  std::vector<std::span<const std::byte>> parts;
  for (const PanelPart& part : section.parts) parts.push_back(part.raw);
  return parts;
}

std::vector<std::span<const std::byte>> panel_parts(const PanelSection& section) {
  std::vector<std::span<const std::byte>> parts;
  for (const PanelPart& part : section.parts) parts.emplace_back(part.matrix->panels());
  return parts;
}

/// A regular file of ours with a good head and as many bytes as that says.
Result<PanelHeader> read_header(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return make_error(ErrorCode::bad_file, "{}", std::strerror(errno));
  if (!S_ISREG(st.st_mode)) return make_error(ErrorCode::bad_file, "is no regular file");
  if (!is_own(st)) return make_error(ErrorCode::bad_file, "can be written by others");
  std::vector<std::byte> bytes(kPanelHeaderBytes);
  if (!read_whole(fd, bytes, 0)) return make_error(ErrorCode::bad_file, "is too short");
  ASSIGN_OR_RETURN(PanelHeader header, decode_panel_header(bytes));
  if (static_cast<uint64_t>(st.st_size) - kPanelHeaderBytes != header.data_bytes)
    return make_error(ErrorCode::bad_file, "has {} bytes, its head says otherwise", st.st_size);
  return header;
}

}  // namespace

PanelCache::PanelCache(PanelCacheOptions options, PanelSource source)
    : options_(std::move(options)),
      source_(std::move(source)),
      prefix_(fmt::format("{:016x}-", source_.fingerprint)) {
  if (options_.folder.empty()) return;
  Result<UniqueFd> folder = open_own_folder(options_.folder);
  if (folder.ok())
    folder_ = std::move(*folder);
  else
    note(fmt::format("{} {}: weights are repacked at each start", options_.folder.string(),
                     folder.error().message));
}

void PanelCache::note(std::string text) {
  if (note_.empty()) note_ = std::move(text);
}

ContentHash PanelCache::key_of(const PanelSection& section) const {
  std::string text = fmt::format("{} {} {:016x} {}", kernels::cpu::panel_layout(),
                                 to_string(source_.isa), source_.fingerprint, section.name);
  for (const PanelPart& part : section.parts) {
    text += fmt::format(" {} {}x{} form {} {} bytes", to_string(part.type), part.matrix->rows(),
                        part.matrix->cols(), static_cast<int>(part.matrix->form()),
                        part.matrix->bytes());
  }
  return hash_of(std::as_bytes(std::span(text)));
}

std::string PanelCache::file_name(const PanelSection& section, const ContentHash& key) const {
  return fmt::format("{}{}-{:016x}{}", prefix_, section.name, key.low, kPanelFileEnd);
}

std::optional<PanelCache::Found> PanelCache::find(const PanelSection& section) {
  const ContentHash key = key_of(section);
  const std::string name = file_name(section, key);
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  Found found;
  found.fd.reset(openat(folder_.get(), name.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!found.fd.valid() && (errno == EROFS || errno == EACCES))
    found.fd.reset(
        openat(folder_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!found.fd.valid()) {
    if (errno != ENOENT)
      note(fmt::format("{} cannot be opened ({}): repacked", (options_.folder / name).string(),
                       std::strerror(errno)));
    return std::nullopt;
  }
  Result<PanelHeader> header = read_header(found.fd.get());
  if (header.ok() &&
      (header->key != key || header->data_bytes != static_cast<uint64_t>(data_bytes(section))))
    header = make_error(ErrorCode::bad_file, "is about other weights than its name says");
  if (!header.ok()) {
    note(fmt::format("{} {}: repacked", (options_.folder / name).string(), header.error().message));
    return std::nullopt;
  }
  found.header = *header;
  return found;
}

FileIdentity PanelCache::settled_identity() const {
  return chainpump::settled_identity(source_.path, source_.identity, options_.settle_ns);
}

ContentHash PanelCache::hash_raw(const PanelSection& section, kernels::cpu::Team& team) {
  for (const PanelPart& part : section.parts) advise_pages(part.raw, MADV_WILLNEED);
  return *hash_parts(team, raw_parts(section));
}

bool PanelCache::same_model(Found& found, PanelSection& section, kernels::cpu::Team& team) {
  const FileIdentity settled = settled_identity();
  if (settled != FileIdentity{} && found.header.source == settled) return true;
  section.raw = hash_raw(section, team);
  if (section.raw != found.header.raw) return false;
  for (const PanelPart& part : section.parts)
    raw_bytes_read_ += static_cast<int64_t>(part.raw.size());
  if (const FileIdentity now = settled_identity(); now != FileIdentity{}) {
    // Advice for the next start; a reader that meets half of it hashes once more.
    const std::vector<std::byte> source = encode_source(now);
    static_cast<void>(
        pwrite(found.fd.get(), source.data(), source.size(), off_t{kPanelSourceOffset}));
  }
  return true;
}

bool PanelCache::read_panels(const Found& found, PanelSection& section, kernels::cpu::Team& team) {
  const int fd = found.fd.get();
  static_cast<void>(posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
  const auto fetch = [&](const ContentPiece& piece) {
    const std::span<std::byte> panels = section.parts[piece.part].matrix->panels();
    return read_whole(fd, panels.subspan(piece.begin, piece.bytes),
                      kPanelHeaderBytes + piece.offset);
  };
  return hash_parts(team, panel_parts(section), fetch) == found.header.data;
}

bool PanelCache::load(PanelSection& section, kernels::cpu::Team& team) {
  if (!folder_.valid()) return false;
  if (load_found(section, team)) return true;
  // Before packing, so that store() can tell whether the model file changed meanwhile.
  if (writable_ && !section.raw) section.raw = hash_raw(section, team);
  return false;
}

bool PanelCache::load_found(PanelSection& section, kernels::cpu::Team& team) {
  std::optional<Found> found = find(section);
  if (!found || !same_model(*found, section, team)) return false;
  if (!read_panels(*found, section, team)) {
    note(fmt::format("{} is damaged: repacked",
                     (options_.folder / file_name(section, found->header.key)).string()));
    for (const PanelPart& part : section.parts) {
      const std::span<std::byte> panels = part.matrix->panels();
      std::memset(panels.data(), 0, panels.size());
    }
    return false;
  }
  const timespec used[2] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW},
                            {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
  static_cast<void>(futimens(found->fd.get(), used));  // what goes first when room is needed
  panel_bytes_read_ += data_bytes(section);
  return true;
}

void PanelCache::store(const PanelSection& section, kernels::cpu::Team& team) {
  if (!folder_.valid() || !writable_ || !section.raw) return;
  PanelHeader header;
  header.source = settled_identity();
  // Unless its times prove that the model file stayed as it was, its content has to.
  if (header.source == FileIdentity{} && hash_raw(section, team) != section.raw) return;
  header.key = key_of(section);
  header.data_bytes = static_cast<uint64_t>(data_bytes(section));
  if (!make_room(folder_.get(), prefix_, data_bytes(section) + int64_t{kPanelHeaderBytes},
                 {.limit_bytes = options_.limit_bytes})) {
    writable_ = false;
    return note(
        fmt::format("{} has no room for this model within its limit: some weights are "
                    "repacked at each start",
                    options_.folder.string()));
  }
  header.raw = *section.raw;
  header.data = *hash_parts(team, panel_parts(section));
  if (!write(file_name(section, header.key), header, section)) {
    writable_ = false;
    note(fmt::format("{} cannot be written ({}): weights are repacked at each start",
                     options_.folder.string(), std::strerror(errno)));
  }
}

/// False with errno.
bool PanelCache::write(const std::string& name, const PanelHeader& header,
                       const PanelSection& section) {
  uint64_t random = 0;
  if (getrandom(&random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) return false;
  const std::string temporary = fmt::format("{}{:016x}", kPanelTemporaryBegin, random);
  const UniqueFd fd(openat(folder_.get(), temporary.c_str(),
                           O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.valid()) return false;
  bool written = write_whole(fd.get(), encode(header));
  for (const PanelPart& part : section.parts)
    written = written && write_whole(fd.get(), part.matrix->panels());
  if (written && renameat(folder_.get(), temporary.c_str(), folder_.get(), name.c_str()) == 0)
    return true;
  const int why = errno;
  unlinkat(folder_.get(), temporary.c_str(), 0);
  errno = why;
  return false;
}

}  // namespace chainpump::models
