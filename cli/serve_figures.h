// What an open-loop load has seen of a service, as figures. Times are the client's own, from the
// instant at which a request was to arrive: what it waits because the client is late counts too.
// Pure; any thread.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace chainpump::cli {

/// One request's account.
struct ServedRequest {
  Duration at{0};     // when it was to arrive, after the load's beginning, as all times here
  Duration sent{0};   // when it was sent
  Duration ended{0};  // the answer's end, or the refusal
  std::vector<Duration> tokens;  // when each came
  int32_t prompt_tokens = 0;
  std::optional<ErrorCode> error;  // how it failed
  bool was_refused = false;        // before it was admitted
};

/// What a good answer is; none: any.
struct ServiceLevel {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
};

/// The value that a share of all (in [0, 1]) does not exceed, by nearest rank; 0 if there are none.
double percentile(std::vector<double> values, double share);

struct Spread {
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};
Spread spread_of(std::vector<double> values);

struct ServeFigures {
  size_t num_requests = 0;
  size_t num_completed = 0;
  size_t num_refused = 0;
  std::map<std::string, size_t> failures;  // admitted and failed, by code
  Duration duration{0};                    // from the beginning to the last end
  int64_t prompt_tokens = 0;               // of completed requests, as the next
  int64_t output_tokens = 0;
  Spread ttft_ms;  // to the first token
  Spread tpot_ms;  // of a request: from its first token to its last, by token after the first
  Spread inter_token_ms;  // between neighbours; tokens that come together are 0 apart
  Spread end_to_end_ms;
  Spread refusal_ms;    // until the client knew
  Spread lateness_ms;   // of the client itself, in sending
  size_t num_good = 0;  // completed within the service level
};

ServeFigures figures_of(const std::vector<ServedRequest>& requests, const ServiceLevel& level);

nlohmann::ordered_json figures_json(const ServeFigures& figures, const ServiceLevel& level);
std::string figures_table(const ServeFigures& figures, const ServiceLevel& level);

}  // namespace chainpump::cli
