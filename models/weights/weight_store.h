// Weights of models that this machine lacks, as far as its ranks have fetched them: in one folder,
// for this user alone, and for each model, named by its content's hash,
//   NAME.gguf      the file, of its full size, with holes where nothing was fetched
//   NAME.have      a byte for each piece: 1, it is there and was checked
//   NAME.manifest  models/weights/manifest.h
// and of files that are here as a whole
//   of-FILE.manifest  their identity (base/mapped_file.h), the manifest, and a checksum: so that a
//                     large file is read and hashed once, not at every start
//
// A piece counts as there once it is on the disk (sync()), so that a rank that dies, or a machine,
// leaves nothing that is believed and wrong; what was not marked is fetched again. Several ranks
// may fetch at once: they write the same bytes. Models that were used least recently go when there
// is no room.
// One thread for each object; any number of processes.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "models/weights/manifest.h"

namespace chainpump::models {

struct WeightStoreOptions {
  std::filesystem::path folder;            // made if missing
  int64_t limit_bytes = int64_t{4} << 40;  // or nine tenths of the free disk, if that is less
};

/// The name of a model's content: 32 hexadecimal digits.
std::string content_name(const graph::ModelIdentity& model);

class WeightStore {
 public:
  /// Of one model. not_found, bad_file: the folder cannot be used; no_room.
  static Result<WeightStore> open(const WeightStoreOptions& options,
                                  const graph::ModelIdentity& model);
  /// The same of what is there already, to be read only. not_found.
  static Result<WeightStore> find(const std::filesystem::path& folder,
                                  const graph::ModelIdentity& model);

  const std::filesystem::path& path() const { return path_; }
  /// The manifest, encoded; nothing if it is not there or not this model's.
  std::optional<std::vector<std::byte>> manifest() const;
  Status keep_manifest(std::span<const std::byte> encoded);

  bool has(uint32_t piece) const;
  /// Whether the head is there, and the manifest.
  bool has_head() const;
  /// no_room: the disk cannot take so many bytes more, within the limit.
  Status reserve(uint64_t bytes);
  /// no_room: the disk is full.
  Status write(uint32_t index, const WeightPiece& piece, std::span<const std::byte> bytes);
  /// Of bytes that are no piece.
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  Status read(const WeightPiece& piece, std::span<std::byte> bytes) const;
  /// What was written is there from now on.
  Status sync();
  /// It was used now.
  void touch();

 private:
  WeightStore(WeightStoreOptions options, graph::ModelIdentity model, UniqueFd folder);
  Status open_files(int flags);
  Error failed(const char* what, int error) const;

  WeightStoreOptions options_;
  graph::ModelIdentity model_;
  std::string name_;
  std::filesystem::path path_;
  UniqueFd folder_;
  UniqueFd data_;
  UniqueFd have_;
  std::vector<uint32_t> written_;  // since the last sync()
};

/// The manifest of a whole file, remembered in `folder` or made now and remembered there, if the
/// folder is not empty and can be used, and the file has not changed within `settle_ns`, as the
/// panel cache has it. As make_manifest().
Result<Manifest> manifest_of(const std::filesystem::path& path, const std::filesystem::path& folder,
                             const std::function<void(int64_t done, int64_t total)>& progress,
                             int64_t settle_ns = int64_t{60'000'000'000});

}  // namespace chainpump::models
