#include "models/npy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace chainpump::models {
namespace {

Error system_error(ErrorCode code, const char* call, std::string_view what) {
  return make_error(code, "{}({}): {}", call, what, std::strerror(errno));
}

Status write_fully(int fd, std::span<const std::byte> bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return system_error(ErrorCode::internal, "pwrite", "npy rows");
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += written;
  }
  return ok_status();
}

}  // namespace

Status write_npy_header(const std::string& path, int64_t rows, int64_t cols) {
  std::string header("\x93NUMPY\x01\x00", 8);
  const auto dict_bytes = static_cast<uint16_t>(kNpyHeaderBytes - 10);
  header += static_cast<char>(dict_bytes & 0xff);
  header += static_cast<char>(dict_bytes >> 8);
  header +=
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  CHECK_LT(static_cast<int64_t>(header.size()), kNpyHeaderBytes);
  header.resize(static_cast<size_t>(kNpyHeaderBytes - 1), ' ');
  header += '\n';
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.valid()) return system_error(ErrorCode::not_found, "open", path);
  if (ftruncate(file.get(), npy_row_offset(rows, cols)) != 0) {
    return system_error(ErrorCode::internal, "ftruncate", path);
  }
  return write_fully(file.get(), std::as_bytes(std::span(header)), 0);
}

Result<UniqueFd> open_npy_rows(const std::string& path, int64_t rows, int64_t cols) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return system_error(ErrorCode::not_found, "open", path);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return system_error(ErrorCode::internal, "fstat", path);
  if (!S_ISREG(status.st_mode) || status.st_size != npy_row_offset(rows, cols)) {
    return make_error(ErrorCode::invalid_argument,
                      "{} is not a file made for {} rows of {} columns", path, rows, cols);
  }
  return file;
}

Status write_npy_row(const UniqueFd& file, int64_t row, std::span<const float> values) {
  return write_fully(file.get(), std::as_bytes(values),
                     npy_row_offset(row, static_cast<int64_t>(values.size())));
}

}  // namespace chainpump::models
