// A rank's share of a model file that its machine lacks, fetched from nodes that have it before the
// rank loads. What comes is checked, piece by piece, against the manifest, whose hash the plan
// says; it is kept (models/weights/weight_store.h), so that whoever fetches again goes on where
// this ended. Whom to ask for what is decided by graph/weight_fetch.h.
//
// Thread rule: fetch_weights() in one thread, which it blocks; it makes another for the calls.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "graph/plan.h"
#include "graph/weight_fetch.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

struct WeightsFetchTerms {
  graph::ModelIdentity model;
  graph::StagePlan stage;
  std::vector<transport::rpc::WeightSource> sources;
  std::shared_ptr<const transport::rpc::Credentials> credentials;
  std::filesystem::path store;
  graph::WeightFetchLimits limits = {};
  /// Of the share; any number of times.
  std::function<void(int64_t done, int64_t total)> progress = {};
  /// How it goes, in sentences for whoever looks after the machine.
  std::function<void(const std::string&)> notice = {};
};

struct FetchedWeights {
  std::filesystem::path path;
  int64_t share_bytes = 0;
};

/// deadline_exceeded, disconnected: nobody sends; bad_file: what is sent is damaged; no_room: the
/// disk is full; not_found: there is nobody, or no folder for it.
Result<FetchedWeights> fetch_weights(const WeightsFetchTerms& terms);

}  // namespace chainpump::actors
