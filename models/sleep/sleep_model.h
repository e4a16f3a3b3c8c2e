// A model that computes nothing and takes a known time: for measuring the engine round it. Its
// name is its description, so that a plan can carry it wherever a file's path would stand:
//
//   sleep:A,B,D[;A,B,D ...]   one layer each: a step takes A + B * tokens + D * attended seconds,
//   attended = sum over the slices of c * (first position + c / 2), c its number of tokens
//
// A graph file cannot ask for it: planning reads a weights file first. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "graph/microbatch.h"

namespace chainpump::models {

struct SleepLayer {
  double overhead_s = 0;
  double token_s = 0;
  double attended_s = 0;
  bool operator==(const SleepLayer&) const = default;
};

inline constexpr int32_t kSleepHidden = 16;
inline constexpr int32_t kSleepVocabulary = 32000;

/// Whether a model path names a sleeping model rather than a file.
bool is_sleep_model(std::string_view path);
/// invalid_argument if a time is not a number in [0, 60], or there are not 1 to 1,024 layers.
Result<std::vector<SleepLayer>> parse_sleep_model(std::string_view path);
std::string sleep_model_name(const std::vector<SleepLayer>& layers);

/// The time of a microbatch through `layers`.
Duration sleep_time(const std::vector<SleepLayer>& layers, const graph::Microbatch& microbatch);

/// What decides a sequence's tokens: all of its tokens so far, in order, its seed and index.
class SleepHash {
 public:
  SleepHash() = default;
  SleepHash(uint64_t seed, uint32_t sequence_index);
  void add(TokenId token);
  /// The token after those that were added.
  TokenId next() const;

 private:
  uint64_t state_ = 0;
};

}  // namespace chainpump::models
