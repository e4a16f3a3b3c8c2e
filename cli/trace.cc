#include "cli/trace.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <thread>

#include "base/atomic_file.h"
#include "cli/exit_status.h"
#include "cli/status.h"
#include "cli/trace_file.h"
#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

constexpr Duration kAnswerMax = std::chrono::seconds(5);
// A stage keeps 8,192 steps: at 20,000 a second none is lost.
constexpr Duration kAskEvery = std::chrono::milliseconds(200);
constexpr double kSecondsMax = 300;

Result<Duration> parse_duration(const std::string& text) {
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  const std::string_view unit(end, static_cast<size_t>(last - end));
  const double seconds = unit == "ms" ? value * 1e-3 : value;
  const bool good = error == std::errc() && (unit.empty() || unit == "s" || unit == "ms") &&
                    seconds > 0 && seconds <= kSecondsMax;
  if (!good)
    return make_error(ErrorCode::invalid_argument,
                      "-d: '{}' must be a duration such as 5s or 500ms, at most {} s",
                      graph::shown(text), kSecondsMax);
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

/// One rank's trace, asked for part by part.
class Follower {
 public:
  Follower(gateway::Service& service, RankId rank) : service_(service), rank_(rank) {}

  /// All that there is to have now.
  Status catch_up() {
    while (true) {
      const TimePoint asked = steady_clock().now();
      ASSIGN_OR_RETURN(const StepEvents part, service_.trace(rank_, next_, kAnswerMax));
      note_clock(asked, steady_clock().now(), part.now);
      num_lost_ += part.lost;
      events_.insert(events_.end(), part.events.begin(), part.events.end());
      const bool all = part.next - next_ < StepTrace::kMaxEvents;
      next_ = part.next;
      if (all) return ok_status();
    }
  }
  void forget() {
    events_.clear();
    num_lost_ = 0;
  }
  /// By this machine's clock, if the rank's is another.
  std::vector<StepEvent> events(bool is_elsewhere) const {
    std::vector<StepEvent> events = events_;
    if (!is_elsewhere) return events;
    for (StepEvent& event : events)
      for (TimePoint* time : {&event.received, &event.credit_from, &event.credit_until,
                              &event.compute_from, &event.compute_until, &event.sent})
        *time = *time - ahead_;
    return events;
  }
  uint64_t num_lost() const { return num_lost_; }

 private:
  /// The rank read its clock in between; the quickest answer says best when.
  void note_clock(TimePoint asked, TimePoint answered, TimePoint theirs) {
    if (answered - asked >= quickest_) return;
    quickest_ = answered - asked;
    ahead_ = theirs - (asked + quickest_ / 2);
  }

  gateway::Service& service_;
  RankId rank_;
  Duration quickest_ = Duration::max();
  Duration ahead_{0};
  uint64_t next_ = 0;
  uint64_t num_lost_ = 0;
  std::vector<StepEvent> events_;
};

Status catch_up(std::vector<Follower>& followers) {
  for (Follower& follower : followers) RETURN_IF_ERROR(follower.catch_up());
  return ok_status();
}

Status follow(std::vector<Follower>& followers, Duration duration) {
  RETURN_IF_ERROR(catch_up(followers));
  for (Follower& follower : followers) follower.forget();  // what was before
  const TimePoint until = steady_clock().now() + duration;
  for (TimePoint now = steady_clock().now(); now < until; now = steady_clock().now()) {
    std::this_thread::sleep_for(std::min(kAskEvery, until - now));
    RETURN_IF_ERROR(catch_up(followers));
  }
  return ok_status();
}

Status write_file(const std::string& path, const std::string& text) {
  ASSIGN_OR_RETURN(AtomicFile file,
                   AtomicFile::create(path, static_cast<int64_t>(text.size()), /*replace=*/true));
  RETURN_IF_ERROR(file.write(std::as_bytes(std::span(text))));
  return file.commit();
}

Status trace(const TraceOptions& options) {
  ASSIGN_OR_RETURN(const Duration duration, parse_duration(options.duration));
  ASSIGN_OR_RETURN(const auto service, find_service(options.name));
  ASSIGN_OR_RETURN(const gateway::StatusReport status, service->status(kAnswerMax));
  if (status.stages.stages.empty())
    return make_error(ErrorCode::overloaded, "the service is {}: {}",
                      gateway::to_string(status.phase), status.message);
  std::vector<Follower> followers;
  for (uint32_t i = 0; i < status.stages.stages.size(); ++i)
    followers.emplace_back(*service, RankId(i));
  RETURN_IF_ERROR(follow(followers, duration));
  // The service's socket is of this machine, and so is every clock where its ranks are all here.
  const auto& all = status.stages.stages;
  const bool are_elsewhere = std::any_of(
      all.begin(), all.end(), [&](const auto& stage) { return stage.node != all.front().node; });

  std::vector<StageSteps> stages;
  size_t num_steps = 0;
  uint64_t num_lost = 0;
  TimePoint origin = steady_clock().now();
  for (size_t i = 0; i < followers.size(); ++i) {
    const actors::StageReport& stage = status.stages.stages[i];
    stages.push_back(
        {.name = fmt::format("{} stage {}: layers {}-{}, process {}{}", lanes_text(stage.lanes),
                             stage.stage, stage.layer_begin, stage.layer_end - 1, stage.pid,
                             stage.node.empty() ? "" : "@" + stage.node),
         .stage = stage.stage,
         .events = followers[i].events(are_elsewhere)});
    for (const StepEvent& event : stages.back().events) origin = std::min(origin, event.received);
    num_steps += stages.back().events.size();
    num_lost += followers[i].num_lost();
  }
  RETURN_IF_ERROR(write_file(options.output, trace_json(stages, origin)));
  std::fprintf(stderr, "%zu steps of %zu stages%s in %s: open it at https://ui.perfetto.dev\n",
               num_steps, stages.size(),
               num_lost > 0 ? fmt::format(" ({} more were lost)", num_lost).c_str() : "",
               options.output.c_str());
  return ok_status();
}

}  // namespace

int run_trace(const TraceOptions& options) {
  const Status done = trace(options);
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
