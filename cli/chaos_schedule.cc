#include "cli/chaos_schedule.h"

#include <algorithm>
#include <string>

#include "base/philox.h"
#include "cli/load.h"
#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

// In the order of FaultKind.
constexpr FaultEntry kFaults[] = {
    {FaultKind::kill, "kill", "SIGKILL of a rank", true},
    {.kind = FaultKind::stop,
     .name = "stop",
     .what = "SIGSTOP of a rank, and SIGCONT after 0.1 to 3 s",
     .can_be = true,
     .is_stop = true},
    {FaultKind::slow, "slow", "a rank that computes slowly"},
    {FaultKind::partition, "partition", "links that carry nothing"},
    {FaultKind::corrupt, "corrupt", "frames that arrive damaged"},
    {FaultKind::coordinator, "coordinator", "SIGKILL of the coordinator", true,
     ServiceRole::coordinator},
    // A service starts its gateway anew three times a minute, and no more.
    {.kind = FaultKind::gateway,
     .name = "gateway",
     .what = "SIGKILL of the gateway",
     .can_be = true,
     .victim = ServiceRole::gateway,
     .apart = std::chrono::seconds(21)},
    {FaultKind::agent, "agent", "SIGKILL of the node agent, with which its ranks end", true,
     ServiceRole::agent},
};

// One that does not end by then has failed.
constexpr Duration kDeadline = std::chrono::minutes(4);
constexpr double kInRecoveryShare = 0.15;
constexpr double kInRecoveryWithinS = 0.5;
constexpr double kDelayMaxS = 1.5;  // so that requests come to their ends
constexpr double kPauseMinS = 0.1;
constexpr double kPauseMaxS = 3;

// What is drawn, each from its own number; the load has its own beside make_prompt()'s.
enum class Draw : uint32_t {
  kind = 100,
  victim,
  in_recovery,
  delay,
  pause,
  prompt_length,
  output_length,
  has_prefix,
  prefix_length,
  sampling,
  temperature,
  penalties,
  stop,
  num_choices,
};

/// The draws of one fault or request.
class Dice {
 public:
  Dice(uint64_t seed, uint64_t number) : seed_(seed), number_(number) {}
  double roll(Draw draw) const {
    return philox_uniform(seed_, static_cast<uint32_t>(draw), number_);
  }
  bool is_below(Draw draw, double share) const { return roll(draw) < share; }
  int32_t between(Draw draw, int32_t min, int32_t max) const {
    return min + static_cast<int32_t>(roll(draw) * (max - min + 1));
  }

 private:
  uint64_t seed_;
  uint64_t number_;
};

Duration seconds(double s) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
}

/// So many of `positions` as `tokens` is of 700.
int32_t share(int32_t tokens, int32_t positions) {
  return static_cast<int32_t>(int64_t{tokens} * positions / kChaosPositions);
}

std::vector<TokenId> prompt_of(const Dice& dice, uint64_t seed, uint64_t number,
                               int32_t vocabulary_size, int32_t positions) {
  constexpr uint64_t kNumPrefixes = 3;
  constexpr int32_t kShortest = 9;  // the least that 16 positions leave
  const int32_t longest = share(400, positions);
  const int32_t length =
      dice.between(Draw::prompt_length, std::max(kShortest, share(20, positions)), longest);
  std::vector<TokenId> prompt = make_prompt(seed, number, length, vocabulary_size);
  if (!dice.is_below(Draw::has_prefix, 0.3)) return prompt;
  // Far from any request's own number.
  const std::vector<TokenId> shared =
      make_prompt(~seed, number % kNumPrefixes,
                  std::min(length, dice.between(Draw::prefix_length, 16, 200)), vocabulary_size);
  std::copy(shared.begin(), shared.end(), prompt.begin());
  return prompt;
}

}  // namespace

std::span<const FaultEntry> fault_entries() { return kFaults; }

const FaultEntry& entry_of(FaultKind kind) {
  const FaultEntry& entry = kFaults[static_cast<size_t>(kind)];
  CHECK(entry.kind == kind);
  return entry;
}

std::string_view to_string(ServiceRole role) {
  switch (role) {
    case ServiceRole::gateway:
      return "gateway";
    case ServiceRole::coordinator:
      return "coordinator";
    case ServiceRole::agent:
      return "agent";
    case ServiceRole::rank:
      return "rank";
  }
  return "?";
}

Result<std::vector<FaultKind>> parse_faults(std::string_view text) {
  std::vector<FaultKind> kinds;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view name = text.substr(0, comma);
    const auto found = std::find_if(std::begin(kFaults), std::end(kFaults),
                                    [name](const FaultEntry& entry) { return entry.name == name; });
    if (found == std::end(kFaults)) {
      std::vector<std::string_view> names;
      for (const FaultEntry& entry : kFaults) names.push_back(entry.name);
      return make_error(ErrorCode::invalid_argument, "--faults: no fault '{}'{}",
                        graph::shown(name), graph::hint(name, names));
    }
    if (!found->can_be)
      return make_error(ErrorCode::unimplemented, "--faults: '{}' ({}) not yet", name, found->what);
    kinds.push_back(found->kind);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  return kinds;
}

PlannedFault planned_fault(uint64_t seed, const std::vector<FaultKind>& kinds, uint64_t number) {
  CHECK(!kinds.empty());
  const Dice dice(seed, number);
  PlannedFault fault;
  fault.kind = kinds[static_cast<size_t>(
      dice.between(Draw::kind, 0, static_cast<int32_t>(kinds.size()) - 1))];
  fault.victim = dice.roll(Draw::victim);
  fault.in_recovery = number > 0 && dice.is_below(Draw::in_recovery, kInRecoveryShare);
  fault.delay =
      seconds(dice.roll(Draw::delay) * (fault.in_recovery ? kInRecoveryWithinS : kDelayMaxS));
  if (entry_of(fault.kind).is_stop)
    fault.pause = seconds(kPauseMinS + dice.roll(Draw::pause) * (kPauseMaxS - kPauseMinS));
  return fault;
}

gateway::GenerateRequest chaos_request(uint64_t seed, uint64_t number, int32_t vocabulary_size,
                                       int32_t positions) {
  CHECK_GE(positions, kChaosPositionsMin);
  CHECK_LE(positions, kChaosPositions);
  const Dice dice(seed, number);
  gateway::GenerateRequest request;
  request.prompt = prompt_of(dice, seed, number, vocabulary_size, positions);
  request.seed = seed + number;
  request.deadline = kDeadline;
  graph::SamplingParams& sampling = request.sampling;
  sampling.max_new_tokens =
      dice.between(Draw::output_length, share(100, positions), share(300, positions));
  sampling.ignore_eos = true;  // lengths are the load's, not the model's
  if (dice.is_below(Draw::sampling, 0.5)) {
    sampling.temperature = static_cast<float>(0.6 + 0.6 * dice.roll(Draw::temperature));
    if (dice.is_below(Draw::sampling, 0.25)) sampling.top_p = 0.9f;
  }
  const double penalties = dice.roll(Draw::penalties);
  if (penalties < 0.2) {
    sampling.repetition_penalty = 1.2f;
  } else if (penalties < 0.4) {
    sampling.presence_penalty = 0.5f;
    sampling.frequency_penalty = 0.3f;
  }
  if (dice.is_below(Draw::stop, 0.2)) sampling.stop = {"\n\n\n", "However", " ("};
  if (dice.is_below(Draw::num_choices, 0.2)) request.num_choices = 2;
  return request;
}

}  // namespace chainpump::cli
