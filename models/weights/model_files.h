// Model files by what they are, not by where they lie; and which tensors of one a stage reads.
// Any thread.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "graph/plan.h"
#include "models/gguf/gguf.h"

namespace chainpump::models {

/// Whether `path` is a file of this size and fingerprint, which is read of it: its head and a few
/// samples. Two that differ in other weights alone are not told apart.
bool is_model(const std::filesystem::path& path, const graph::ModelIdentity& model);

/// The first of `candidates`, or of the *.gguf in `folder` in the order of their names, that is.
std::optional<std::filesystem::path> find_model(
    const graph::ModelIdentity& model, const std::vector<std::filesystem::path>& candidates,
    const std::filesystem::path& folder);

/// What a stage reads of the file: its layers, the ends that it has, and whatever belongs to none.
std::vector<const GgufTensor*> stage_tensors(const GgufFile& file, const graph::StagePlan& stage);

}  // namespace chainpump::models
