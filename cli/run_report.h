// What a run reports: figures of the request, stages and links, as a table for people or JSON for
// programs (its keys are an API). Pure; one thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "actors/runtime.h"
#include "cli/generation.h"

namespace chainpump::cli {

/// `after` with the counters of `before` taken off: what happened between the two.
actors::RuntimeReport since(const actors::RuntimeReport& before,
                            const actors::RuntimeReport& after);

/// {"text", "token_ids", "prompt_token_ids", "finish_reason", "ttft_ms", "tpot_ms",
/// "tokens_per_second", "prefill_tokens_per_second", "seed", "version", "system_fingerprint",
/// "stages": [...], "links": [...]}, one line.
std::string run_json(const Generated& generated, const std::vector<TokenId>& prompt, uint64_t seed,
                     const actors::RuntimeReport& report);

/// Their "stages" and "links", and both as a table.
nlohmann::ordered_json stages_json(const actors::RuntimeReport& report);
nlohmann::ordered_json links_json(const actors::RuntimeReport& report);
std::string stages_table(const actors::RuntimeReport& report);

/// The same as lines of a table.
std::string summary(const Generated& generated, size_t num_prompt_tokens,
                    const actors::RuntimeReport& report);

}  // namespace chainpump::cli
