// Writes a GGUF file whose tensors take the types of a recipe: `chainpump quantize`. Tensors go
// through float32 in slabs of a few megabytes, several threads to a slab, so that memory is bounded
// whatever the model; each block depends on its own values alone, so that the result is the same
// for any number of threads. What was written is decoded again: that every weight is finite is
// checked, and how far it is off is measured. All keys are kept, but for general.file_type and
// general.quantization_version, which are set. Run from one thread, which becomes one of the team.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <vector>

#include "base/result.h"
#include "models/quantize/recipe.h"

namespace chainpump::models {

struct QuantizeOptions {
  std::filesystem::path input;
  std::filesystem::path output;
  Recipe recipe;
  bool replace = false;  // an output that exists
  int num_threads = 1;
  /// Bytes of weights read so far, and in all; called after each slab. May be empty.
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
  /// Asked before each slab; true ends the work. May be empty.
  std::function<bool()> is_cancelled;
};

/// What became of the tensors of one type.
struct TypeSummary {
  int64_t num_tensors = 0;
  int64_t bytes_before = 0;
  int64_t bytes_after = 0;
  double squares = 0.0;         // of the weights before
  double squared_errors = 0.0;  // of the weights after
};

/// Tensors whose rows do not fit the blocks of the type that the recipe wants.
struct FallbackSummary {
  DType wanted = DType::f32;
  DType type = DType::f32;
  int64_t cols = 0;
  int64_t num_tensors = 0;
};

struct QuantizeReport {
  std::map<DType, TypeSummary> types;
  std::vector<FallbackSummary> fallbacks;
  int64_t file_bytes_before = 0;
  int64_t file_bytes_after = 0;
  bool input_was_quantised = false;  // its errors are in the output, too
};

/// The output exists, whole, if and only if this succeeds. invalid_argument if it is the input, or
/// exists and may not be replaced; not_found and bad_file for the input, which is bad_file too if a
/// weight is NaN or infinite, or past what the type can hold (the message names the tensor);
/// unimplemented if it is not a llama model, or one of several files; no_room if the disk is full;
/// cancelled.
Result<QuantizeReport> quantize_file(const QuantizeOptions& options);

}  // namespace chainpump::models
