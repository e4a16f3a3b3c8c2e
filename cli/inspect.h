// `chainpump inspect FILE`: what a GGUF file holds, from its header alone. Reads no weights, knows
// no architecture. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace chainpump::cli {

enum class OutputFormat : uint8_t { table, json };

struct InspectOptions {
  std::string file;
  OutputFormat output = OutputFormat::table;
};

/// The report as text, ending in a newline. JSON: {"file", "version", "file_bytes", "header_bytes",
/// "fingerprint", "parameters", "metadata": {key: value}, "tensors": [{"name", "type", "dims",
/// "offset", "bytes"}]}; arrays of more than 16 values are given as {"count", "first"}, the same as
/// the table shows. Errors as models::GgufFile::open().
Result<std::string> inspect_report(const InspectOptions& options);

/// Prints the report on standard output or the error on standard error. Exit status: 0; 3 if
/// the file is missing or bad; 5 if output fails.
int run_inspect(const InspectOptions& options);

}  // namespace chainpump::cli
