#include "cli/batch_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "base/file_io.h"
#include "base/philox.h"
#include "cli/batch_line.h"
#include "graph/diagnostics.h"
#include "models/panel_cache/content_hash.h"

namespace chainpump::cli {
namespace {

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::vector<InputLine> lines_of(std::string_view text) {
  std::vector<InputLine> lines;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back({number, line});
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

Status check_custom_ids(const std::filesystem::path& path, const std::vector<InputLine>& lines) {
  constexpr int kShownMax = 10;
  std::unordered_map<std::string, size_t> line_of;  // looked up, never walked
  std::string found;
  int num_found = 0;
  for (const InputLine& line : lines) {
    std::optional<std::string> id = read_batch_line(line.text).custom_id;
    if (!id) continue;
    const auto [first, is_new] = line_of.emplace(std::move(*id), line.number);
    if (is_new || ++num_found > kShownMax) continue;
    found += fmt::format("\n{}:{}: custom_id '{}' is that of line {}", path.string(), line.number,
                         graph::shown(first->first), first->second);
  }
  if (num_found == 0) return ok_status();
  if (num_found > kShownMax) found += fmt::format("\nand {} more", num_found - kShownMax);
  return make_error(ErrorCode::bad_file, "each custom_id may be there once{}", found);
}

/// The whole lines of a file from its beginning, one at a time.
class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}
  /// None at the end: what is left then is a line without its end.
  Result<std::optional<std::string_view>> next() {
    buffer_.erase(0, std::exchange(taken_, 0));
    size_t looked_at = 0;
    while (true) {
      const size_t end = buffer_.find('\n', looked_at);
      if (end != std::string::npos) {
        taken_ = end + 1;
        return std::optional(std::string_view(buffer_).substr(0, end));
      }
      looked_at = buffer_.size();
      char piece[size_t{64} << 10];
      const ssize_t got = ::pread(fd_, piece, sizeof piece, offset_);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        return make_error(ErrorCode::bad_file, "cannot be read: {}", std::strerror(errno));
      if (got == 0) return std::optional<std::string_view>();
      if (buffer_.size() > kEntryBytesMax)
        return make_error(ErrorCode::bad_file, "has a line of more than {} MiB",
                          kEntryBytesMax >> 20);
      buffer_.append(piece, static_cast<size_t>(got));
      offset_ += got;
    }
  }
  std::string_view rest() const { return buffer_; }

 private:
  static constexpr size_t kEntryBytesMax = size_t{1} << 30;
  int fd_;
  off_t offset_ = 0;
  std::string buffer_;
  size_t taken_ = 0;
};

/// Whether an entry of this input, cut short anywhere, can look like that.
bool is_torn_entry(std::string_view rest, std::string_view fingerprint) {
  const std::string beginning = entry_beginning(fingerprint);
  const size_t compared = std::min(rest.size(), beginning.size());
  return rest.substr(0, compared) == std::string_view(beginning).substr(0, compared);
}

}  // namespace

BatchInput::BatchInput(MappedFile file, std::vector<InputLine> lines)
    : file_(std::move(file)), lines_(std::move(lines)) {
  const models::ContentHash hash = models::hash_of(file_.bytes());
  fingerprint_ = fmt::format("{:016x}", hash.low);
  key_ = hash.high;
}

Result<BatchInput> BatchInput::open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  std::vector<InputLine> lines = lines_of(text_of(file));
  RETURN_IF_ERROR(check_custom_ids(path, lines));
  return BatchInput(std::move(file), std::move(lines));
}

uint64_t BatchInput::seed_of(const InputLine& line) const {
  const auto low = [](uint64_t bits) { return static_cast<uint32_t>(bits); };
  const PhiloxCounter bits =
      philox4x32({low(line.number), low(line.number >> 32), 0, 0}, {low(key_), low(key_ >> 32)});
  return uint64_t{bits[0]} << 32 | bits[1];
}

Result<BatchOutput> BatchOutput::open(const std::filesystem::path& path, const BatchInput& input) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666));
  if (!fd.valid())
    return make_error(ErrorCode::not_found, "{}: cannot be written: {}", path.string(),
                      std::strerror(errno));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode))
    return make_error(ErrorCode::bad_file, "{}: not a regular file", path.string());
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
    return make_error(ErrorCode::overloaded, "{}: another batch is writing it", path.string());
  BatchOutput output(path, std::move(fd));
  RETURN_IF_ERROR(output.take_over(input));
  return output;
}

Status BatchOutput::take_over(const BatchInput& input) {
  done_.resize(input.lines().size());
  LineReader reader(fd_.get());
  for (size_t line = 1;; ++line) {
    const Result<std::optional<std::string_view>> entry = reader.next();
    if (!entry.ok())
      return make_error(entry.error().code, "{}: {}", path_.string(), entry.error().message);
    if (!*entry) break;
    RETURN_IF_ERROR(take_entry(**entry, line, input));
    bytes_ += static_cast<int64_t>((*entry)->size()) + 1;
  }
  if (reader.rest().empty()) return ok_status();
  if (!is_torn_entry(reader.rest(), input.fingerprint()))
    return make_error(ErrorCode::bad_file,
                      "{}: ends in what no batch of this input has written; nothing was changed",
                      path_.string());
  return ::ftruncate(fd_.get(), bytes_) == 0 ? ok_status() : Status(failed("ftruncate"));
}

Status BatchOutput::take_entry(std::string_view entry, size_t line, const BatchInput& input) {
  const std::optional<size_t> number = line_of_entry(entry, input.fingerprint());
  if (!number)
    return make_error(ErrorCode::bad_file,
                      "{}:{}: not an entry of this input: it belongs to another batch, or the "
                      "input has changed; nothing was changed",
                      path_.string(), line);
  const auto& lines = input.lines();
  const auto found = std::lower_bound(lines.begin(), lines.end(), *number,
                                      [](const InputLine& a, size_t b) { return a.number < b; });
  const auto index = static_cast<size_t>(found - lines.begin());
  if (found == lines.end() || found->number != *number || done_[index])
    return make_error(
        ErrorCode::bad_file, "{}:{}: an entry for line {}, which {}", path_.string(), line, *number,
        index < lines.size() && found->number == *number ? "has one already" : "is no request");
  done_[index] = true;
  ++num_done_;
  if (!system_fingerprint_) system_fingerprint_ = fingerprint_of_entry(entry);
  return ok_status();
}

Status BatchOutput::append(std::string_view entry) {
  if (write_whole(fd_.get(), std::as_bytes(std::span(entry)))) {
    bytes_ += static_cast<int64_t>(entry.size());
    return ok_status();
  }
  const Error error = failed("write");
  // What was written of the line goes again; if that fails too, the next run does it.
  [[maybe_unused]] const int ignored = ::ftruncate(fd_.get(), bytes_);
  return error;
}

Status BatchOutput::sync() {
  return ::fsync(fd_.get()) == 0 ? ok_status() : Status(failed("fsync"));
}

Error BatchOutput::failed(const char* call) const {
  return make_error(ErrorCode::internal, "{}: {}: {}", path_.string(), call, std::strerror(errno));
}

}  // namespace chainpump::cli
