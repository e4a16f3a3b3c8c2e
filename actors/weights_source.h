// Serves the weights that this machine has to nodes that lack them (schemas/weights.capnp): on a
// thread of its own, since it reads from disks. A caller names a file by its whole identity; what
// it is looked for among is decided here, never by the caller.
//
//   whole files  one that it was given, and the *.gguf of the folder --models
//   shares       what ranks of this machine have fetched (models/weights/weight_store.h)
// Any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "graph/plan.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

struct WeightPlaces {
  std::filesystem::path models = {};  // folder of files; empty: none
  std::filesystem::path store = {};   // folder of what was fetched; empty: none
};

class WeightsSource {
 public:
  /// For nodes, and nobody else. no_room.
  static Result<std::unique_ptr<WeightsSource>> start(
      UniqueFd listener, std::shared_ptr<const transport::rpc::Credentials> credentials,
      WeightPlaces places);
  ~WeightsSource();
  WeightsSource(const WeightsSource&) = delete;
  WeightsSource& operator=(const WeightsSource&) = delete;

  /// Where it listens.
  const std::string& address() const;
  /// A file that is served from now on, with its manifest, by which others check what they fetch.
  void set_model(std::filesystem::path path, const graph::ModelIdentity& model,
                 std::vector<std::byte> manifest);

 private:
  struct Impl;
  explicit WeightsSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Whom a rank may ask: `serve`, if it listens, and the nodes that have joined, as the file says.
std::vector<transport::rpc::WeightSource> weight_sources(const std::string& nodes_file,
                                                         const transport::rpc::WeightSource& serve);

}  // namespace chainpump::actors
