// Ten times as many requests as sleeping stages can serve, through the gateway's core, a runtime
// and its links: what the stages could do is known exactly, sleeping takes no core, so what is lost
// beside it is admission's and the queue's. Four phases, one after the other:
//
//   peak       as many requests at once as may be live: tokens of completed requests per second
//   calm       a quarter of that rate: the usual time to the first token
//   overload   ten times the rate, open loop: completed per second, how long refusals take, memory
//   after      a quarter again: when the first token is back at its usual time, nobody refused
//
//   overload_bench SECONDS [check]     `check`: ends with 1 if a figure is off by a wide margin
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/philox.h"
#include "cli/pipeline_case.h"
#include "gateway/core.h"
#include "tests/models/fake_tokenizer.h"

namespace chainpump {
namespace {

using gateway::Generation;

constexpr int32_t kStages = 4;
constexpr int32_t kRunning = 32;
constexpr int32_t kQueued = 64;
constexpr int32_t kNewTokens = 20;
constexpr double kOverload = 10;
constexpr double kCalm = 0.25;
constexpr Duration kEndsMax = std::chrono::seconds(30);  // 96 requests take a tenth of a second

/// A request's account, in seconds since it was sent.
struct Account {
  double at_s = 0;  // since the phase began
  double first_token_s = 0;
  double end_s = 0;
};

struct PhaseFigures {
  std::vector<Account> completed;
  std::vector<double> refusals_ms;
  double seconds = 0;
  double goodput() const {
    const auto in_time = std::count_if(completed.begin(), completed.end(), [&](const Account& a) {
      return a.at_s + a.end_s <= seconds;
    });
    return static_cast<double>(in_time) / seconds;
  }
};

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1,
                         static_cast<size_t>(share * static_cast<double>(values.size())))];
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  double pages = 0;
  file >> pages >> pages;
  return pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

class Client {
 public:
  explicit Client(gateway::Core& core) : core_(core) {}

  /// Open loop for so long, then until all that was admitted has ended.
  PhaseFigures offer(double per_second, double seconds);
  /// As many at once as are let in, for so long.
  PhaseFigures saturate(size_t at_once, double seconds);

 private:
  struct Live {
    std::shared_ptr<Generation> generation;
    TimePoint sent;
    double first_token_s = 0;
    bool ended = false;
  };
  bool send();
  bool take(Live& live);
  void take_news(Duration patience);
  void wait_ends();
  double since_start(TimePoint at) const { return to_seconds(at - start_); }

  gateway::Core& core_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> news_;  // of which requests; under mutex_
  std::map<uint64_t, Live> live_;
  uint64_t last_number_ = 0;
  TimePoint start_;
  PhaseFigures figures_;
};

/// Whether it was let in.
bool Client::send() {
  const uint64_t number = ++last_number_;
  gateway::GenerateRequest request;
  gateway::TokenIds prompt;
  for (uint64_t i = 0; i < 16; ++i)
    prompt.push_back(static_cast<TokenId>((number * 131 + i * 7 + 1) % models::kSleepVocabulary));
  request.prompt = std::move(prompt);
  request.sampling.max_new_tokens = kNewTokens;
  request.sampling.ignore_eos = true;
  request.seed = number;
  const TimePoint sent = steady_clock().now();
  auto generation = core_.generate(request, [this, number] {
    const std::lock_guard lock(mutex_);
    news_.push_back(number);
    changed_.notify_one();
  });
  if (generation.ok())
    live_.emplace(number, Live{.generation = *generation, .sent = sent});
  else
    figures_.refusals_ms.push_back(to_ms(steady_clock().now() - sent));
  return generation.ok();
}

/// Whether there is nothing more to take for now.
bool Client::take(Live& live) {
  const gateway::Update update = live.generation->take();
  const TimePoint now = steady_clock().now();
  if (!update.deltas.empty() && live.first_token_s == 0)
    live.first_token_s = to_seconds(now - live.sent);
  if (!update.end) return update.deltas.empty();
  live.ended = true;
  if (update.end->ok())
    figures_.completed.push_back(
        {since_start(live.sent), live.first_token_s, to_seconds(now - live.sent)});
  else  // refused by the lane, after the gateway had let it in
    figures_.refusals_ms.push_back(to_ms(now - live.sent));
  return true;
}

/// Waits for news, and takes all of it.
void Client::take_news(Duration patience) {
  std::vector<uint64_t> news;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::max(patience, Duration(0)), [this] { return !news_.empty(); });
    news.swap(news_);
  }
  for (const uint64_t number : news) {
    const auto found = live_.find(number);
    if (found == live_.end()) continue;
    // It is told again only once it has found nothing.
    while (!take(found->second)) {
    }
    if (found->second.ended) live_.erase(found);
  }
}

PhaseFigures Client::offer(double per_second, double seconds) {
  figures_ = {.completed = {}, .refusals_ms = {}, .seconds = seconds};
  start_ = steady_clock().now();
  double next_s = 0;
  for (uint64_t i = 0; next_s < seconds; ++i) {
    const auto due = start_ + Duration(static_cast<int64_t>(next_s * 1e9));
    while (steady_clock().now() < due) take_news(due - steady_clock().now());
    send();
    next_s -= std::log(philox_uniform(7, 0, i)) / per_second;
  }
  wait_ends();
  return std::move(figures_);
}

PhaseFigures Client::saturate(size_t at_once, double seconds) {
  figures_ = {.completed = {}, .refusals_ms = {}, .seconds = seconds};
  start_ = steady_clock().now();
  const TimePoint end = start_ + Duration(static_cast<int64_t>(seconds * 1e9));
  while (steady_clock().now() < end) {
    while (live_.size() < at_once && send()) {
    }
    take_news(std::chrono::milliseconds(100));
  }
  wait_ends();
  return std::move(figures_);
}

/// Of all that was let in; it is a fault of the engine's if that takes long.
void Client::wait_ends() {
  const TimePoint deadline = steady_clock().now() + kEndsMax;
  while (!live_.empty() && steady_clock().now() < deadline)
    take_news(std::chrono::milliseconds(100));
  CHECK_MSG(live_.empty(), "{} requests do not end", live_.size());
}

double usual_first_token_s(const PhaseFigures& phase) {
  std::vector<double> values;
  for (const Account& a : phase.completed) values.push_back(a.first_token_s);
  return percentile(values, 0.5);
}

/// Until when somebody was refused or waited for more than three times as long as is usual.
double recovered_after_s(const PhaseFigures& phase, double usual_s) {
  if (!phase.refusals_ms.empty()) return phase.seconds;
  double last = 0;
  for (const Account& a : phase.completed)
    if (a.first_token_s > 3 * usual_s) last = std::max(last, a.at_s + a.first_token_s);
  return last;
}

class Verdict {
 public:
  void row(std::string_view what, double value, std::string_view unit, bool ok,
           std::string_view wanted) {
    fmt::print("  {:<36} {:>9.2f} {:<14} (wanted {}: {})\n", what, value, unit, wanted,
               ok ? "ok" : "off");
  }
  void must(bool holds, std::string_view what) {
    if (holds) return;
    failed_ = true;
    std::fprintf(stderr, "overload: %s\n", std::string(what).c_str());
  }
  bool failed() const { return failed_; }

 private:
  bool failed_ = false;
};

/// The phases, with figures and what no loaded machine excuses.
void measure(gateway::Core& core, double seconds, Verdict& verdict) {
  const double short_s = std::max(2.0, seconds / 6);
  Client client(core);
  const PhaseFigures peak = client.saturate(kRunning + kQueued / 2, short_s);
  const double capacity = peak.goodput();
  const PhaseFigures calm = client.offer(kCalm * capacity, short_s);
  const double usual_s = usual_first_token_s(calm);
  client.offer(kOverload * capacity, short_s);  // what grows once has grown
  const double before_mib = resident_mib();
  const PhaseFigures overload = client.offer(kOverload * capacity, seconds);
  const double grown_mib = resident_mib() - before_mib;
  const PhaseFigures after = client.offer(kCalm * capacity, std::max(5.0, short_s));
  const double goodput = overload.goodput() / capacity;
  const double refusal_ms = percentile(overload.refusals_ms, 0.99);
  const double recovery_s = recovered_after_s(after, usual_s);
  fmt::print(
      "  {} sleeping stages of 2 ms: peak {:.0f} requests/s; {:.0f} offered for {:.0f} s, {} "
      "refused\n",
      kStages, capacity, kOverload * capacity, seconds, overload.refusals_ms.size());
  verdict.row("goodput / peak", goodput, "", goodput >= 0.95, ">= 0.95");
  verdict.row("refusals, p99", refusal_ms, "ms", refusal_ms <= 10, "<= 10");
  verdict.row("resident memory, growth", grown_mib, "MiB", grown_mib < 4, "flat");
  verdict.row("normal again after", recovery_s, "s", recovery_s <= 5, "<= 5");
  verdict.must(goodput > 0.7, "less than 0.7 of the peak's rate is completed under overload");
  verdict.must(!overload.refusals_ms.empty(), "nobody was refused");
  verdict.must(refusal_ms < 100, "refusals take more than 100 ms");
  verdict.must(grown_mib < 32, "memory grows under overload");
  verdict.must(after.refusals_ms.empty(), "requests are refused after the overload");
  verdict.must(recovery_s <= 5, "first tokens are late for more than 5 s after the overload");
}

int run(double seconds, bool check) {
  cli::PipelineCase c;
  c.stages.assign(kStages, {2e-3, 0, 0});
  c.num_requests = kRunning;
  c.new_tokens = kNewTokens;
  c.chunk_tokens = 512;
  c.max_microbatch_tokens = 1024;
  c.max_microbatches = kStages;
  graph::Plan plan = cli::pipeline_plan(c);
  plan.max_queued = kQueued;
  actors::RuntimeOptions options;
  options.in_process = true;
  options.spin_between_ops = false;
  const auto runtime = actors::Runtime::start(plan, options);
  if (!runtime.ok() || !(*runtime)->wait_ready(std::chrono::seconds(30)).ok()) {
    std::fprintf(stderr, "overload: the stages do not start\n");
    return 1;
  }
  gateway::RuntimeEngine engine(**runtime);
  gateway::DeploymentInfo info;
  info.graph_name = "overload";
  info.plan = plan;
  std::vector<std::string> pieces(static_cast<size_t>(models::kSleepVocabulary), "a");
  gateway::Core core(engine,
                     gateway::PromptEncoder(
                         std::make_unique<models::FakeTokenizer>(pieces, std::vector<TokenId>{}),
                         make_error(ErrorCode::not_found, "no template")),
                     info, {}, steady_clock());
  core.set_ready("ready");
  std::atomic<bool> stopping{false};
  std::thread ticker([&] {
    while (!stopping) {
      core.tick();
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  Verdict verdict;
  measure(core, seconds, verdict);
  stopping = true;
  ticker.join();
  (*runtime)->stop();
  return check && verdict.failed() ? 1 : 0;
}

}  // namespace
}  // namespace chainpump

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0;
  if (!(seconds >= 1 && seconds <= 600)) {
    std::fprintf(stderr, "usage: overload_bench SECONDS [check]\n");
    return 2;
  }
  return chainpump::run(seconds, argc > 2 && std::string_view(argv[2]) == "check");
}
