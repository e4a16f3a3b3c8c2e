#include "models/stage_executor.h"

#include <utility>

#include "base/mapped_file.h"
#include "models/gguf/gguf.h"
#include "models/llama/llama_stage.h"
#include "models/sleep/sleep_stage.h"

namespace chainpump::models {

Result<std::unique_ptr<StageExecutor>> load_stage(const std::string& model_path,
                                                  const StageSpec& spec,
                                                  const LoadProgress& progress) {
  if (is_sleep_model(model_path)) return SleepStage::load(model_path, spec);
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(model_path));
  ASSIGN_OR_RETURN(GgufFile file, GgufFile::parse(mapped.bytes(), model_path));
  // One architecture so far; LlamaStage refuses the others by name.
  return LlamaStage::load(std::move(mapped), std::move(file), spec, progress);
}

}  // namespace chainpump::models
