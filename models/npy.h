// Files of float32 matrices in NumPy's format, version 1.0
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), written row by row in
// any order and by several processes: the header has a fixed size, so a row's place is known.
// Stateless; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::models {

inline constexpr int64_t kNpyHeaderBytes = 128;

/// Byte offset of row `row` of a matrix with `cols` columns.
inline int64_t npy_row_offset(int64_t row, int64_t cols) {
  return kNpyHeaderBytes + row * cols * static_cast<int64_t>(sizeof(float));
}

/// Makes (or replaces) the file of a float32 matrix [rows, cols], all zero and sparse so far.
/// not_found if it cannot be created, internal if it cannot be written.
Status write_npy_header(const std::string& path, int64_t rows, int64_t cols);

/// Opens such a file for writing rows. not_found if it cannot be opened, invalid_argument if its
/// size is not that of [rows, cols].
Result<UniqueFd> open_npy_rows(const std::string& path, int64_t rows, int64_t cols);

/// Writes one row (`values.size()` columns). internal if the system refuses (disk full, ...).
Status write_npy_row(const UniqueFd& file, int64_t row, std::span<const float> values);

}  // namespace chainpump::models
