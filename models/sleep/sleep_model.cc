#include "models/sleep/sleep_model.h"

#include <charconv>
#include <cmath>

namespace chainpump::models {
namespace {

constexpr std::string_view kPrefix = "sleep:";
constexpr double kSecondsMax = 60;
constexpr size_t kLayersMax = 1024;

/// splitmix64's finisher: every bit of the input reaches every bit of the output.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Takes what stands before `separator`, or all of it.
std::string_view take_part(std::string_view& rest, char separator) {
  const size_t at = rest.find(separator);
  const std::string_view part = rest.substr(0, at);
  rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
  return part;
}

}  // namespace

bool is_sleep_model(std::string_view path) { return path.starts_with(kPrefix); }

Result<std::vector<SleepLayer>> parse_sleep_model(std::string_view path) {
  const auto refuse = [&] {
    return make_error(ErrorCode::invalid_argument,
                      "model '{}' is not sleep:A,B,D[;A,B,D ...] with seconds in [0, {}] and at "
                      "most {} layers",
                      path.substr(0, 100), kSecondsMax, kLayersMax);
  };
  if (!is_sleep_model(path)) return refuse();
  std::string_view rest = path.substr(kPrefix.size());
  std::vector<SleepLayer> layers;
  do {
    if (layers.size() == kLayersMax) return refuse();
    std::string_view text = take_part(rest, ';');
    SleepLayer& layer = layers.emplace_back();
    for (double* seconds : {&layer.overhead_s, &layer.token_s, &layer.attended_s}) {
      const std::string_view number = take_part(text, ',');
      const char* const end = number.data() + number.size();
      const auto [stopped, error] = std::from_chars(number.data(), end, *seconds);
      if (error != std::errc() || stopped != end || !(*seconds >= 0 && *seconds <= kSecondsMax))
        return refuse();
    }
    if (!text.empty()) return refuse();
  } while (!rest.empty());
  return layers;
}

std::string sleep_model_name(const std::vector<SleepLayer>& layers) {
  std::string name(kPrefix);
  for (const SleepLayer& layer : layers) {
    if (&layer != &layers.front()) name += ';';
    name += fmt::format("{},{},{}", layer.overhead_s, layer.token_s, layer.attended_s);
  }
  return name;
}

Duration sleep_time(const std::vector<SleepLayer>& layers, const graph::Microbatch& microbatch) {
  double tokens = 0;
  double attended = 0;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    const auto count = static_cast<double>(slice.tokens.size());
    tokens += count;
    attended += count * (slice.first_position + count / 2);
  }
  double seconds = 0;
  for (const SleepLayer& layer : layers)
    seconds += layer.overhead_s + layer.token_s * tokens + layer.attended_s * attended;
  return Duration(std::llround(std::min(seconds, kSecondsMax) * 1e9));
}

SleepHash::SleepHash(uint64_t seed, uint32_t sequence_index)
    : state_(mix(seed ^ mix(sequence_index + 1))) {}

void SleepHash::add(TokenId token) {
  state_ = mix(state_ * 0x9e3779b97f4a7c15u + static_cast<uint32_t>(token) + 1);
}

TokenId SleepHash::next() const {
  return static_cast<TokenId>(mix(state_) % static_cast<uint64_t>(kSleepVocabulary));
}

}  // namespace chainpump::models
