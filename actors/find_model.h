// Where the weights of a node's rank are: in the file at the path that the model has where it was
// planned, or in one of the same content in the folder --models, or in what was fetched, of which
// the rest is fetched now.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/commands.h"
#include "actors/rank.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

struct ModelSearch {
  RankTerms terms;
  std::shared_ptr<const transport::rpc::Credentials> credentials;
  graph::ModelIdentity model;  // all zero: by its path alone, or by its name in the folder
  std::string path;
  std::vector<transport::rpc::WeightSource> sources;
};

/// As fetch_weights(); not_found: it is not here, and nobody knows what it is. Blocks; tells how it
/// goes on standard error, and by `progress`.
Result<ModelPlace> find_model(const ModelSearch& search, const graph::StagePlan& stage,
                              const rpc::ProgressReport& progress);

}  // namespace chainpump::actors
