#include "cli/serve_figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace chainpump::cli {
namespace {

using Json = nlohmann::ordered_json;

std::optional<double> tpot_ms(const ServedRequest& request) {
  const auto& tokens = request.tokens;
  if (tokens.size() < 2) return std::nullopt;
  return to_ms(tokens.back() - tokens.front()) / static_cast<double>(tokens.size() - 1);
}

bool is_good(const ServedRequest& request, const ServiceLevel& level) {
  if (request.tokens.empty()) return false;
  if (level.ttft_ms && to_ms(request.tokens.front() - request.at) > *level.ttft_ms) return false;
  return !level.tpot_ms || tpot_ms(request).value_or(0) <= *level.tpot_ms;
}

double per_second(double count, Duration duration) {
  return duration.count() > 0 ? count / to_seconds(duration) : 0;
}

Json spread_json(const Spread& spread) {
  return {{"mean", spread.mean},
          {"p50", spread.p50},
          {"p90", spread.p90},
          {"p99", spread.p99},
          {"max", spread.max}};
}

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::string spread_line(const char* name, const Spread& s) {
  return fmt::format("{:<16}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}\n", name, s.mean, s.p50,
                     s.p90, s.p99, s.max);
}

std::string level_text(const ServiceLevel& level) {
  std::string text;
  if (level.ttft_ms) text += fmt::format(", first token within {:g} ms", *level.ttft_ms);
  if (level.tpot_ms) text += fmt::format(", {:g} ms per token", *level.tpot_ms);
  return text.empty() ? ", no service level given" : text;
}

}  // namespace

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto count = static_cast<double>(values.size());
  const double rank = std::clamp(std::ceil(share * count), 1.0, count);
  const auto nth = values.begin() + static_cast<ptrdiff_t>(rank) - 1;
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {.mean = sum / static_cast<double>(values.size()),
          .p50 = percentile(values, 0.5),
          .p90 = percentile(values, 0.9),
          .p99 = percentile(values, 0.99),
          .max = *std::max_element(values.begin(), values.end())};
}

ServeFigures figures_of(const std::vector<ServedRequest>& requests, const ServiceLevel& level) {
  ServeFigures out{.num_requests = requests.size()};
  std::vector<double> ttft, tpot, inter_token, end_to_end, refusal, lateness;
  for (const ServedRequest& request : requests) {
    out.duration = std::max(out.duration, request.ended);
    lateness.push_back(to_ms(request.sent - request.at));
    if (request.was_refused) {
      ++out.num_refused;
      refusal.push_back(to_ms(request.ended - request.sent));
      continue;
    }
    if (request.error) {
      ++out.failures[std::string(to_string(*request.error))];
      continue;
    }
    ++out.num_completed;
    out.prompt_tokens += request.prompt_tokens;
    out.output_tokens += static_cast<int64_t>(request.tokens.size());
    out.num_good += is_good(request, level) ? 1 : 0;
    end_to_end.push_back(to_ms(request.ended - request.at));
    if (!request.tokens.empty()) ttft.push_back(to_ms(request.tokens.front() - request.at));
    if (const auto time = tpot_ms(request)) tpot.push_back(*time);
    for (size_t i = 1; i < request.tokens.size(); ++i)
      inter_token.push_back(to_ms(request.tokens[i] - request.tokens[i - 1]));
  }
  out.ttft_ms = spread_of(std::move(ttft));
  out.tpot_ms = spread_of(std::move(tpot));
  out.inter_token_ms = spread_of(std::move(inter_token));
  out.end_to_end_ms = spread_of(std::move(end_to_end));
  out.refusal_ms = spread_of(std::move(refusal));
  out.lateness_ms = spread_of(std::move(lateness));
  return out;
}

Json figures_json(const ServeFigures& f, const ServiceLevel& level) {
  const double share = f.num_requests > 0
                           ? static_cast<double>(f.num_good) / static_cast<double>(f.num_requests)
                           : 0;
  Json failed = Json::object();
  for (const auto& [code, count] : f.failures) failed[code] = count;
  return {
      {"requests", f.num_requests},
      {"completed", f.num_completed},
      {"refused", f.num_refused},
      {"failed", std::move(failed)},
      {"duration_s", to_seconds(f.duration)},
      {"requests_per_second", per_second(static_cast<double>(f.num_completed), f.duration)},
      {"prompt_tokens_per_second", per_second(static_cast<double>(f.prompt_tokens), f.duration)},
      {"output_tokens_per_second", per_second(static_cast<double>(f.output_tokens), f.duration)},
      {"prompt_tokens", f.prompt_tokens},
      {"output_tokens", f.output_tokens},
      {"ttft_ms", spread_json(f.ttft_ms)},
      {"tpot_ms", spread_json(f.tpot_ms)},
      {"inter_token_ms", spread_json(f.inter_token_ms)},
      {"end_to_end_ms", spread_json(f.end_to_end_ms)},
      {"refusal_ms", spread_json(f.refusal_ms)},
      {"lateness_ms", spread_json(f.lateness_ms)},
      {"slo",
       {{"ttft_ms", or_null(level.ttft_ms)},
        {"tpot_ms", or_null(level.tpot_ms)},
        {"good", f.num_good},
        {"good_share", share},
        {"goodput_requests_per_second", per_second(static_cast<double>(f.num_good), f.duration)}}}};
}

std::string figures_table(const ServeFigures& f, const ServiceLevel& level) {
  size_t num_failed = 0;
  for (const auto& [code, count] : f.failures) num_failed += count;
  std::string text = fmt::format(
      "{} requests in {:.1f} s: {} completed, {} refused, {} failed\n"
      "{:.2f} requests/s, {:.1f} tokens/s out, {:.1f} tokens/s in\n"
      "goodput {:.2f} requests/s ({} good{})\n\n",
      f.num_requests, to_seconds(f.duration), f.num_completed, f.num_refused, num_failed,
      per_second(static_cast<double>(f.num_completed), f.duration),
      per_second(static_cast<double>(f.output_tokens), f.duration),
      per_second(static_cast<double>(f.prompt_tokens), f.duration),
      per_second(static_cast<double>(f.num_good), f.duration), f.num_good, level_text(level));
  text += fmt::format("{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}\n", "ms", "mean", "p50", "p90", "p99",
                      "max");
  text += spread_line("first token", f.ttft_ms) + spread_line("per token", f.tpot_ms) +
          spread_line("between tokens", f.inter_token_ms) +
          spread_line("whole answer", f.end_to_end_ms);
  if (f.num_refused > 0) text += spread_line("refusal", f.refusal_ms);
  return text + spread_line("client's delay", f.lateness_ms);
}

}  // namespace chainpump::cli
