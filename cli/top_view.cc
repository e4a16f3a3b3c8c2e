#include "cli/top_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/stage_names.h"

namespace chainpump::cli {
namespace {

constexpr int kBarWidth = 30;

double rate(uint64_t before, uint64_t now, Duration between) {
  if (now < before || between.count() <= 0) return 0;
  return static_cast<double>(now - before) / to_seconds(between);
}

std::string stage_line(const std::string& place, size_t width, const actors::StageReport& before,
                       const actors::StageReport& now, Duration between) {
  const StageShares s = shares_between(before, now);
  const auto percent = [](double share) { return fmt::format("{:.1f}%", 100 * share); };
  return fmt::format("{:<{}}{:<8}{:<9}[{}]{:>7}{:>7}{:>7}{:>7}{:>7}{:>9.1f}{:>10.1f}\n", place,
                     width, fmt::format("{}-{}", now.layer_begin, now.layer_end - 1), now.pid,
                     shares_bar(s, kBarWidth), percent(s.busy), percent(s.transfer),
                     percent(s.wait_input), percent(s.wait_credit), percent(s.idle),
                     rate(before.steps, now.steps, between),
                     rate(before.tokens, now.tokens, between));
}

std::string stage_lines(const gateway::StatusReport& before, const gateway::StatusReport& now,
                        Duration between) {
  if (now.stages.stages.empty()) return {};
  const bool with_lanes = has_lanes(now.stages);
  const size_t width = stage_width(now.stages);
  std::string text = fmt::format(
      "\n{:<{}}{:<8}{:<9}{:<32}{:>7}{:>7}{:>7}{:>7}{:>7}{:>9}{:>10}\n", "stage", width, "layers",
      "process", fmt::format("{:<{}}", "# busy > transfer . ! waiting", kBarWidth + 2), "busy",
      "trans", "input", "credit", "idle", "steps/s", "tokens/s");
  for (size_t i = 0; i < now.stages.stages.size(); ++i) {
    const actors::StageReport& stage = now.stages.stages[i];
    const bool known = i < before.stages.stages.size();
    text += stage_line(stage_place(stage, with_lanes), width,
                       known ? before.stages.stages[i] : stage, stage, between);
  }
  return text;
}

/// "KV [####    ] 50.0% of 320 blocks": what sequences hold; blocks that only keep a prefix are
/// free.
std::string kv_text(const actors::LaneReport& lane) {
  const double used = lane.num_kv_blocks > 0
                          ? 1 - static_cast<double>(lane.num_free_kv_blocks) / lane.num_kv_blocks
                          : 0;
  return fmt::format("KV [{}] {:.1f}% of {} blocks", shares_bar({.busy = used}, kBarWidth),
                     100 * used, lane.num_kv_blocks);
}

/// Each lane's part of it, where there are several.
std::string lane_lines(const actors::RuntimeReport& report) {
  std::string text;
  for (size_t i = 0; report.lanes.size() > 1 && i < report.lanes.size(); ++i) {
    const actors::LaneReport& lane = report.lanes[i];
    text += fmt::format("lane {:<5}{:>4} run {:>4} wait    {}\n", lane.lane, lane.num_running,
                        lane.num_waiting, kv_text(lane));
  }
  return text;
}

std::string slow_lines(const gateway::Readiness& readiness) {
  std::string text;
  for (const graph::LaneHealth& lane : readiness.lanes)
    if (!lane.slow.empty()) text += fmt::format("slow      lane {}: {}\n", lane.lane, lane.slow);
  return text;
}

}  // namespace

actors::LaneReport sum_of(const std::vector<actors::LaneReport>& lanes) {
  actors::LaneReport sum;
  for (const actors::LaneReport& lane : lanes) {
    sum.num_running += lane.num_running;
    sum.num_waiting += lane.num_waiting;
    sum.num_kv_blocks += lane.num_kv_blocks;
    sum.num_free_kv_blocks += lane.num_free_kv_blocks;
  }
  return sum;
}

StageShares shares_between(const actors::StageReport& before, const actors::StageReport& now) {
  const std::array<Duration, 5> parts = {now.busy - before.busy, now.transfer - before.transfer,
                                         now.bubble_input - before.bubble_input,
                                         now.bubble_credit - before.bubble_credit,
                                         now.idle - before.idle};
  Duration whole{0};
  for (const Duration part : parts) whole += part;
  const bool anew =
      std::any_of(parts.begin(), parts.end(), [](Duration d) { return d.count() < 0; });
  if (anew || whole.count() <= 0) return {};
  const auto share = [&](size_t i) { return to_seconds(parts[i]) / to_seconds(whole); };
  return {.busy = share(0),
          .transfer = share(1),
          .wait_input = share(2),
          .wait_credit = share(3),
          .idle = share(4)};
}

std::string shares_bar(const StageShares& shares, int width) {
  std::string bar;
  double until = 0;
  for (const auto& [share, mark] :
       {std::pair(shares.busy, '#'), std::pair(shares.transfer, '>'),
        std::pair(shares.wait_input, '.'), std::pair(shares.wait_credit, '!')}) {
    until += share;
    const auto end = static_cast<size_t>(std::lround(std::clamp(until, 0.0, 1.0) * width));
    bar.resize(std::max(end, bar.size()), mark);
  }
  bar.resize(static_cast<size_t>(width), ' ');
  return bar;
}

std::string top_view(const gateway::DeploymentInfo& deployment, const gateway::StatusReport& before,
                     const gateway::StatusReport& now, Duration between) {
  const graph::Plan& plan = deployment.plan;
  const actors::LaneReport all = sum_of(now.stages.lanes);
  return fmt::format(
             "{}: {} ({}), process {}, up {:.0f} s    chainpump {}\n"
             "requests  {} live: {} sequences run, {} wait ({} run at once)\n"
             "          {:.1f} completed/s, {:.1f} refused/s; {} completed, {} failed, {} "
             "cancelled, {} refused\n"
             "tokens    {:.1f}/s    {}\n",
             deployment.graph_name, gateway::to_string(now.phase), now.message, now.pid,
             to_seconds(now.uptime), deployment.build, now.num_requests, all.num_running,
             all.num_waiting, plan.max_sequences * num_lanes(plan),
             rate(before.num_completed, now.num_completed, between),
             rate(before.num_refused, now.num_refused, between), now.num_completed, now.num_failed,
             now.num_cancelled, now.num_refused, rate(before.num_tokens, now.num_tokens, between),
             kv_text(all)) +
         slow_lines(now.readiness) + lane_lines(now.stages) + stage_lines(before, now, between);
}

}  // namespace chainpump::cli
