#include "actors/find_model.h"

#include <cstdio>
#include <filesystem>

#include "actors/weights_fetch.h"
#include "models/sleep/sleep_model.h"
#include "models/weights/model_files.h"

namespace chainpump::actors {
namespace {

namespace fs = std::filesystem;

Result<ModelPlace> find_by_path(const ModelSearch& search, const fs::path& named) {
  std::error_code ignored;
  if (models::is_sleep_model(search.path) || fs::exists(search.path, ignored))
    return ModelPlace{search.path};
  if (!named.empty() && fs::exists(named, ignored)) return ModelPlace{named.string()};
  return make_error(ErrorCode::not_found, "node '{}' has no file {}{}", search.terms.node,
                    search.path,
                    named.empty() ? " (nor a folder --models)" : " nor " + named.string());
}

}  // namespace

Result<ModelPlace> find_model(const ModelSearch& search, const graph::StagePlan& stage,
                              const rpc::ProgressReport& progress) {
  const fs::path models = search.terms.models;
  const fs::path named = models.empty() ? fs::path() : models / fs::path(search.path).filename();
  if (search.model == graph::ModelIdentity{}) return find_by_path(search, named);
  if (const auto here = models::find_model(search.model, {search.path, named}, models))
    return ModelPlace{here->string()};
  const auto say = [&](const std::string& what) {
    std::fprintf(stderr, "chainpump: stage '%s': %s\n", stage.name.c_str(), what.c_str());
  };
  const WeightsFetchTerms terms{.model = search.model,
                                .stage = stage,
                                .sources = search.sources,
                                .credentials = search.credentials,
                                .store = search.terms.weights,
                                .progress =
                                    [&](int64_t done, int64_t total) {
                                      if (progress) progress(done, total + stage.weight_bytes);
                                    },
                                .notice = say};
  Result<FetchedWeights> fetched = fetch_weights(terms);
  if (!fetched.ok())
    return make_error(fetched.error().code, "node '{}' has no file of the model {}; {}",
                      search.terms.node, search.path, fetched.error().message);
  return ModelPlace{fetched->path.string(), fetched->share_bytes};
}

}  // namespace chainpump::actors
