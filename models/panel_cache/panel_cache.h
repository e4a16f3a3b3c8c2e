// Repacked weights kept on disk, so that a second start reads them instead of repacking. One file
// per section (a layer, or the head), so that every cut of a model shares them.
//
// When is a file right? Its name and key say model, shapes and layout of the panels; its `raw` hash
// covers every byte of the section's tensors in the model file; its `data` hash every byte of the
// panels and is checked while they are read, so a damaged file costs a repacking, never a wrong
// token. Is the model file still what `raw` was computed from? If its identity (device, inode,
// size, times) is what the file recorded, yes, without reading it: the change time cannot be set
// back. Else the section's tensors are read and hashed: still far cheaper than repacking, sound for
// a copied, touched or edited file, and no rank reads more than its own tensors. A model that has
// changed within `settle` is always hashed, as its times may not have moved yet. (Out of scope:
// somebody who forges files of this user, or writes to the model through a mapping while it loads.)
//
// Files are read into the stage's own huge pages, not mapped: over small pages decoding is 23-34 %
// slower on one thread and 13-16 % on two (SmolLM2, Zen4), and whether a file's pages are huge
// depends on the kernel, the file system and how the file was written. Reading costs 10 GB/s, and
// what was checked is then out of anybody's reach.
//
// Written under another name and renamed: racing ranks replace a file by its equal. Not synced: a
// power failure leaves a file whose hashes are wrong. A folder or file of another user is not
// trusted. Nothing here fails a load: the first thing that is wrong becomes note().
// One thread, the one that made the team.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "kernels/cpu/matmul.h"
#include "models/panel_cache/content_hash.h"
#include "models/panel_cache/panel_header.h"

namespace chainpump::models {

struct PanelCacheOptions {
  std::filesystem::path folder;             // made if missing; empty: no cache
  int64_t limit_bytes = int64_t{20} << 30;  // or a tenth of the free disk, if that is less
  int64_t settle_ns = int64_t{60'000'000'000};
};

/// The model file as it was opened.
struct PanelSource {
  std::filesystem::path path;
  FileIdentity identity;
  uint64_t fingerprint = 0;
  kernels::cpu::Isa isa = kernels::cpu::Isa::reference;
};

struct PanelPart {
  DType type;
  std::span<const std::byte> raw;      // in the mapped model file
  kernels::cpu::PackedMatrix* matrix;  // allocated
};

struct PanelSection {
  std::string name;  // "layer-12", "head"
  std::vector<PanelPart> parts;
  std::optional<ContentHash> raw;  // content before packing; load() sets it
};

class PanelCache {
 public:
  PanelCache(PanelCacheOptions options, PanelSource source);

  /// Fills the panels of every part; false: they are all zero, as they were, and have to be packed.
  bool load(PanelSection& section, kernels::cpu::Team& team);
  /// Keeps the panels of a section that load() did not have, if there is room.
  void store(const PanelSection& section, kernels::cpu::Team& team);

  /// Of the model file, hashed by load() because the file's identity was new.
  int64_t raw_bytes_read() const { return raw_bytes_read_; }
  /// Of the cache.
  int64_t panel_bytes_read() const { return panel_bytes_read_; }
  /// What went wrong first, in words for the user; empty if nothing did.
  const std::string& note() const { return note_; }

 private:
  struct Found {
    UniqueFd fd;
    PanelHeader header;
  };
  std::string file_name(const PanelSection& section, const ContentHash& key) const;
  ContentHash key_of(const PanelSection& section) const;
  std::optional<Found> find(const PanelSection& section);
  bool load_found(PanelSection& section, kernels::cpu::Team& team);
  ContentHash hash_raw(const PanelSection& section, kernels::cpu::Team& team);
  bool same_model(Found& found, PanelSection& section, kernels::cpu::Team& team);
  bool read_panels(const Found& found, PanelSection& section, kernels::cpu::Team& team);
  FileIdentity settled_identity() const;
  bool write(const std::string& name, const PanelHeader& header, const PanelSection& section);
  void note(std::string text);

  const PanelCacheOptions options_;
  const PanelSource source_;
  const std::string prefix_;  // of the model's files
  UniqueFd folder_;
  bool writable_ = true;
  int64_t raw_bytes_read_ = 0;
  int64_t panel_bytes_read_ = 0;
  std::string note_;
};

}  // namespace chainpump::models
