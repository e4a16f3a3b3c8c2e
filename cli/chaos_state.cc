#include "cli/chaos_state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

constexpr size_t kBytesMax = size_t{64} << 20;

Result<std::string> read_all(int fd, const std::string& path) {
  std::string text;
  char piece[65536];
  while (true) {
    const ssize_t got = ::read(fd, piece, sizeof piece);
    if (got < 0) return make_error(ErrorCode::bad_file, "{}: {}", path, std::strerror(errno));
    if (got == 0) return text;
    text.append(piece, static_cast<size_t>(got));
    if (text.size() > kBytesMax)
      return make_error(ErrorCode::bad_file, "{}: more than {} bytes", path, kBytesMax);
  }
}

}  // namespace

Result<ChaosState> ChaosState::open(const std::string& path, const nlohmann::ordered_json& run) {
  ChaosState state;
  state.file_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!state.file_.valid())
    return make_error(ErrorCode::not_found, "{}: {}", path, std::strerror(errno));
  if (::flock(state.file_.get(), LOCK_EX | LOCK_NB) != 0)
    return make_error(ErrorCode::overloaded, "{}: another run has it", path);
  ASSIGN_OR_RETURN(const std::string text, read_all(state.file_.get(), path));
  RETURN_IF_ERROR(state.read(text, path, run.dump()));
  return state;
}

Status ChaosState::read(const std::string& text, const std::string& path,
                        const std::string& first_line) {
  size_t begin = 0;
  size_t number = 0;
  for (size_t end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (++number == 1) {
      if (line == first_line) continue;
      return make_error(ErrorCode::bad_file, "{}: is of another run, {}; this is {}", path,
                        graph::shown(line), first_line);
    }
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    Result<ChaosReport> part = chaos_report_of(json);
    if (!part.ok())
      return make_error(ErrorCode::bad_file, "{}:{}: {}", path, number, part.error().message);
    report_.add(std::move(*part));
  }
  // A line that was cut short is not one.
  if (::ftruncate(file_.get(), static_cast<off_t>(begin)) != 0)
    return make_error(ErrorCode::no_room, "{}: {}", path, std::strerror(errno));
  return number == 0 ? write_line(first_line) : ok_status();
}

Status ChaosState::write_line(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(file_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()))
    return ok_status();
  return make_error(ErrorCode::no_room, "the state file cannot be written: {}",
                    std::strerror(errno));
}

Status ChaosState::add(const ChaosReport& part) {
  report_.add(part);
  return file_.valid() ? write_line(chaos_json(part).dump()) : ok_status();
}

}  // namespace chainpump::cli
