// One line of a batch to its entry, by way of a service. An error of the request is the line's
// answer; one that says "later" is waited out; one of the service ends the run, and the line has no
// answer then. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cli/batch_files.h"
#include "cli/batch_line.h"
#include "cli/under_way.h"
#include "gateway/openai/response.h"

namespace chainpump::cli {

struct BatchEntry {
  std::string text;  // with its line's end
  bool failed = false;
  int64_t tokens = 0;  // generated
};

/// On what terms a batch uses a service.
struct BatchTerms {
  int32_t priority = -1;  // behind who waits for an answer
  std::string tenant;
};

class BatchAnswerer {
 public:
  /// `input`, `deployment` and `under_way` must outlive it.
  BatchAnswerer(const BatchInput& input, const gateway::DeploymentInfo& deployment,
                std::string system_fingerprint, BatchTerms terms, UnderWay& under_way);

  Result<BatchEntry> answer(gateway::Service& service, const InputLine& line);

 private:
  struct Asked;

  Result<BatchEntry> ask(gateway::Service& service, const Asked& asked);
  Result<std::unique_ptr<gateway::Generating>> admit(gateway::Service& service, const Asked& asked);
  Result<BatchEntry> answered(const Asked& asked, const gateway::openai::Answer& answer);
  /// The tokenizer, for log-probabilities; read once.
  Result<const models::Tokenizer*> tokenizer();

  const BatchInput& input_;
  const gateway::DeploymentInfo& deployment_;
  const std::vector<std::string> model_names_;
  const std::string system_fingerprint_;
  const BatchTerms terms_;
  UnderWay& under_way_;

  std::mutex mutex_;
  std::unique_ptr<models::Tokenizer> tokenizer_;
};

}  // namespace chainpump::cli
