#include "cli/load.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/philox.h"
#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

constexpr int32_t kTokensMax = 1 << 20;

struct NamedMix {
  std::string_view name;
  std::string_view classes;
};
constexpr NamedMix kMixes[] = {
    {"short", "1:16-128/16-64"},
    {"chat", "1:64-512/32-256"},
    {"long", "1:1024-4096/16-128"},
    {"mixed", "6:16-128/16-64,3:64-512/32-256,1:1024-4096/16-128"},
};

// What is drawn for an arrival, each from its own number.
enum class Draw : uint32_t { gap, kind, prompt_length, output_length, token };

double uniform(uint64_t seed, Draw draw, uint64_t position) {
  return philox_uniform(seed, static_cast<uint32_t>(draw), position);
}

int32_t between(LengthRange range, double uniform_draw) {
  const double width = static_cast<double>(range.max) - range.min + 1;
  return range.min + static_cast<int32_t>(width * uniform_draw);
}

template <typename T>
bool read_whole(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool read_range(std::string_view text, LengthRange& out) {
  const size_t dash = text.find('-');
  const std::string_view high = dash == std::string_view::npos ? text : text.substr(dash + 1);
  return read_whole(text.substr(0, dash), out.min) && read_whole(high, out.max) && out.min >= 1 &&
         out.min <= out.max && out.max <= kTokensMax;
}

bool read_class(std::string_view text, LengthClass& out) {
  const size_t colon = text.find(':');
  const size_t slash = text.find('/');
  if (colon == std::string_view::npos || slash == std::string_view::npos || slash < colon)
    return false;
  return read_whole(text.substr(0, colon), out.weight) && out.weight > 0 && out.weight <= 1e9 &&
         read_range(text.substr(colon + 1, slash - colon - 1), out.prompt_tokens) &&
         read_range(text.substr(slash + 1), out.output_tokens);
}

const LengthClass& drawn_class(const std::vector<LengthClass>& mix, double uniform_draw) {
  double total = 0;
  for (const LengthClass& kind : mix) total += kind.weight;
  double left = uniform_draw * total;
  for (const LengthClass& kind : mix)
    if ((left -= kind.weight) <= 0) return kind;
  return mix.back();
}

}  // namespace

Result<std::vector<LengthClass>> parse_mix(std::string_view text) {
  for (const NamedMix& mix : kMixes)
    if (mix.name == text) text = mix.classes;
  std::vector<LengthClass> classes;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    if (!read_class(part, classes.emplace_back()))
      return make_error(ErrorCode::invalid_argument,
                        "--mix: '{}' is not short, chat, long or mixed, nor WEIGHT:PROMPT/OUTPUT "
                        "as 1:16-128/32, in tokens up to {}",
                        graph::shown(part), kTokensMax);
    if (comma == std::string_view::npos) return classes;
    text.remove_prefix(comma + 1);
  }
}

std::vector<Arrival> make_arrivals(const LoadParams& params) {
  std::vector<Arrival> arrivals;
  double at_s = 0;
  for (uint64_t i = 0; i < params.num_requests; ++i) {
    at_s -= std::log(uniform(params.seed, Draw::gap, i)) / params.requests_per_second;
    const LengthClass& kind = drawn_class(params.mix, uniform(params.seed, Draw::kind, i));
    arrivals.push_back(
        {.at = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(at_s)),
         .prompt_tokens = between(kind.prompt_tokens, uniform(params.seed, Draw::prompt_length, i)),
         .output_tokens =
             between(kind.output_tokens, uniform(params.seed, Draw::output_length, i))});
  }
  return arrivals;
}

std::vector<TokenId> make_prompt(uint64_t seed, size_t number, int32_t num_tokens,
                                 int32_t vocabulary_size) {
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < num_tokens; ++i) {
    const uint64_t position = static_cast<uint64_t>(number) * kTokensMax + static_cast<uint64_t>(i);
    prompt.push_back(between({0, vocabulary_size - 1}, uniform(seed, Draw::token, position)));
  }
  return prompt;
}

}  // namespace chainpump::cli
