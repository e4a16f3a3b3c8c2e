// An open-loop load: when requests arrive and how long they are, from a seed. Arrivals do not wait
// for answers, as a service's users do not. Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"

namespace chainpump::cli {

struct LengthRange {
  int32_t min = 1;  // both are drawn, all between equally often
  int32_t max = 1;
};

/// One kind of requests.
struct LengthClass {
  double weight = 1;  // its share, of the sum of all
  LengthRange prompt_tokens;
  LengthRange output_tokens;
};

/// "short", "chat", "long" and "mixed", or classes of one's own, WEIGHT:PROMPT/OUTPUT with commas
/// between: "7:16-128/32,3:1024/8-64". invalid_argument saying which part is wrong.
Result<std::vector<LengthClass>> parse_mix(std::string_view text);

struct Arrival {
  Duration at{0};  // after the load's beginning
  int32_t prompt_tokens = 1;
  int32_t output_tokens = 1;
  bool operator==(const Arrival&) const = default;
};

struct LoadParams {
  double requests_per_second = 1;
  size_t num_requests = 1;
  std::vector<LengthClass> mix;
  uint64_t seed = 0;
};

/// A Poisson process. Each arrival is a function of the seed, its number and the rest of the
/// parameters: a longer load begins as a shorter one does.
std::vector<Arrival> make_arrivals(const LoadParams& params);

/// The prompt of the arrival with this number: token ids drawn from the whole vocabulary.
std::vector<TokenId> make_prompt(uint64_t seed, size_t number, int32_t num_tokens,
                                 int32_t vocabulary_size);

}  // namespace chainpump::cli
