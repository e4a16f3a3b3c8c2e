#include "models/weights/model_files.h"

#include <algorithm>
#include <charconv>

#include "base/mapped_file.h"
#include "models/fingerprint.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kLayerBegin = "blk.";

/// Of a tensor `blk.N.`...
std::optional<int32_t> layer_of(std::string_view name) {
  if (!name.starts_with(kLayerBegin)) return std::nullopt;
  name.remove_prefix(kLayerBegin.size());
  int32_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

}  // namespace

bool is_model(const std::filesystem::path& path, const graph::ModelIdentity& model) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) != model.bytes || error) return false;
  const Result<MappedFile> mapped = MappedFile::open(path);
  if (!mapped.ok() || mapped->bytes().size() != model.bytes) return false;
  const Result<GgufFile> file = GgufFile::parse(mapped->bytes(), path.string());
  return file.ok() && model_fingerprint(mapped->bytes(), *file) == model.fingerprint;
}

std::optional<std::filesystem::path> find_model(
    const graph::ModelIdentity& model, const std::vector<std::filesystem::path>& candidates,
    const std::filesystem::path& folder) {
  for (const std::filesystem::path& path : candidates)
    if (is_model(path, model)) return path;
  std::vector<std::filesystem::path> others;
  std::error_code ignored;
  if (!folder.empty())
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".gguf") others.push_back(entry.path());
  std::sort(others.begin(), others.end());
  for (const std::filesystem::path& path : others)
    if (is_model(path, model)) return path;
  return std::nullopt;
}

std::vector<const GgufTensor*> stage_tensors(const GgufFile& file, const graph::StagePlan& stage) {
  const bool is_tied = file.find_tensor("output.weight") == nullptr;
  const auto is_read = [&](std::string_view name) {
    if (const std::optional<int32_t> layer = layer_of(name))
      return *layer >= stage.layer_begin && *layer < stage.layer_end;
    if (name == "token_embd.weight") return stage.has_embedding || (stage.has_head && is_tied);
    if (name.starts_with("output")) return stage.has_head;
    return true;
  };
  std::vector<const GgufTensor*> tensors;
  for (const GgufTensor& tensor : file.tensors())
    if (is_read(tensor.name)) tensors.push_back(&tensor);
  return tensors;
}

}  // namespace chainpump::models
