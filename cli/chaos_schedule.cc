#include "cli/chaos_schedule.h"

#include <algorithm>
#include <string>

#include "base/philox.h"
#include "cli/load.h"
#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

using transport::FaultOrder;
using transport::FaultPoint;

// A service starts its gateway anew three times a minute, and no more.
constexpr Duration kGatewaysApart = std::chrono::seconds(21);

// In the order of FaultKind.
constexpr FaultEntry kFaults[] = {
    {FaultKind::kill, "kill", "SIGKILL of a rank"},
    {.kind = FaultKind::stop,
     .name = "stop",
     .what = "SIGSTOP of a rank, and SIGCONT after 0.1 to 3 s",
     .is_stop = true},
    {.kind = FaultKind::slow,
     .name = "slow",
     .what = "a rank whose steps take ten times as long",
     .order = FaultOrder::Kind::slowness},
    {.kind = FaultKind::partition,
     .name = "partition",
     .what = "a rank's links carry nothing, one way or both",
     .order = FaultOrder::Kind::silence},
    {.kind = FaultKind::corrupt,
     .name = "corrupt",
     .what = "a frame that arrives damaged",
     .order = FaultOrder::Kind::damage},
    {FaultKind::coordinator, "coordinator", "SIGKILL of the coordinator", ServiceRole::coordinator},
    {.kind = FaultKind::gateway,
     .name = "gateway",
     .what = "SIGKILL of the gateway",
     .victim = ServiceRole::gateway,
     .apart = kGatewaysApart},
    {FaultKind::agent, "agent", "SIGKILL of the node agent, with which its ranks end",
     ServiceRole::agent},
    {.kind = FaultKind::kill_next,
     .name = "kill+next",
     .what = "SIGKILL of a rank and of the one that it sends to",
     .second = Second::next_rank},
    {.kind = FaultKind::kill_standby,
     .name = "kill+standby",
     .what = "SIGKILL of a rank and of its stage's standby",
     .second = Second::standby},
    {.kind = FaultKind::coordinator_kill,
     .name = "coordinator+kill",
     .what = "SIGKILL of the coordinator and of a rank",
     .victim = ServiceRole::coordinator,
     .second = Second::any_rank},
    {.kind = FaultKind::gateway_kill,
     .name = "gateway+kill",
     .what = "SIGKILL of the gateway and of a lane's first rank",
     .victim = ServiceRole::gateway,
     .second = Second::first_rank,
     .apart = kGatewaysApart},
};

// One that does not end by then has failed.
constexpr Duration kDeadline = std::chrono::minutes(4);
constexpr double kInRecoveryShare = 0.15;
constexpr double kInRecoveryWithinS = 0.5;
constexpr double kDelayMaxS = 1.5;  // so that requests come to their ends
constexpr double kPauseMinS = 0.1;
constexpr double kPauseMaxS = 3;
constexpr double kAtPointShare = 0.5;  // of the kills
constexpr int32_t kPassingsMax = 12;   // of a point, by the one that dies there
constexpr int32_t kFillsMax = 3;       // of which there may be few
constexpr double kSlowness = 10;
constexpr int32_t kDamagedMax = 20;  // which frame

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
  second,
  at_point,
  point,
  count,
  way,
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

FaultOrder death_at_a_point(const Dice& dice) {
  FaultOrder order{.kind = FaultOrder::Kind::death};
  order.point =
      static_cast<FaultPoint>(dice.between(Draw::point, 0, transport::kNumFaultPoints - 1));
  const int32_t most = order.point == FaultPoint::filling ? kFillsMax
                       : is_of_repair(order.point)        ? 1
                                                          : kPassingsMax;
  order.count = static_cast<uint32_t>(dice.between(Draw::count, 1, most));
  return order;
}

/// What a rank is told to do to itself.
FaultOrder order_of(FaultKind kind, const Dice& dice) {
  FaultOrder order{.kind = entry_of(kind).order};
  switch (order.kind) {
    case FaultOrder::Kind::nothing:
    case FaultOrder::Kind::death:
      if (kind == FaultKind::kill && dice.is_below(Draw::at_point, kAtPointShare))
        return death_at_a_point(dice);
      break;
    case FaultOrder::Kind::slowness:
      order.factor = kSlowness;
      break;
    case FaultOrder::Kind::silence: {
      const int32_t way = dice.between(Draw::way, 0, 2);
      order.of_input = way != 0;
      order.of_output = way != 1;
      break;
    }
    case FaultOrder::Kind::damage:
      order.of_header = dice.is_below(Draw::way, 0.5);
      order.count = static_cast<uint32_t>(dice.between(Draw::count, 1, kDamagedMax));
      break;
  }
  if (order.kind == FaultOrder::Kind::slowness || order.kind == FaultOrder::Kind::silence)
    order.lasts = seconds(kPauseMinS + dice.roll(Draw::pause) * (kPauseMaxS - kPauseMinS));
  return order;
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
    kinds.push_back(found->kind);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  return kinds;
}

bool is_of_repair(FaultPoint point) {
  switch (point) {
    case FaultPoint::after_receive:
    case FaultPoint::before_send:
    case FaultPoint::mid_frame:
    case FaultPoint::after_kv_write:
      return false;
    case FaultPoint::fencing:
    case FaultPoint::connecting:
    case FaultPoint::filling:
      return true;
  }
  return false;
}

PlannedFault planned_fault(uint64_t seed, const std::vector<FaultKind>& kinds, uint64_t number) {
  CHECK(!kinds.empty());
  const Dice dice(seed, number);
  PlannedFault fault;
  fault.kind = kinds[static_cast<size_t>(
      dice.between(Draw::kind, 0, static_cast<int32_t>(kinds.size()) - 1))];
  fault.victim = dice.roll(Draw::victim);
  fault.second = dice.roll(Draw::second);
  fault.in_recovery = number > 0 && dice.is_below(Draw::in_recovery, kInRecoveryShare);
  fault.delay =
      seconds(dice.roll(Draw::delay) * (fault.in_recovery ? kInRecoveryWithinS : kDelayMaxS));
  if (entry_of(fault.kind).is_stop)
    fault.pause = seconds(kPauseMinS + dice.roll(Draw::pause) * (kPauseMaxS - kPauseMinS));
  fault.order = order_of(fault.kind, dice);
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
