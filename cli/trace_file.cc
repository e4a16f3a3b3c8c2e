#include "cli/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace chainpump::cli {
namespace {

constexpr int kComputeRow = 1;
constexpr int kSendRow = 2;

class Writer {
 public:
  explicit Writer(TimePoint origin) : origin_(origin) {}

  void name(const char* what, size_t rank, int row, const std::string& name) {
    add(R"({{"name":"{}","ph":"M","pid":{},"tid":{},"args":{{"name":{}}}}})", what, rank, row,
        nlohmann::json(name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  void span(const char* what, size_t rank, int row, TimePoint from, TimePoint until,
            const StepEvent& event) {
    add(R"({{"name":"{} {}","cat":"{}","ph":"X","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},)"
        R"("args":{{"lane":{},"microbatch":{},"tokens":{},"queued_us":{:.3f}}}}})",
        what, event.microbatch.value, what, rank, row, us(from - origin_),
        us(std::max(until - from, Duration(0))), event.lane, event.microbatch.value,
        event.num_tokens, us(event.compute_from - event.received));
  }
  /// One end of an arrow; ends of equal ids belong together.
  void arrow(bool begins, uint64_t id, size_t rank, TimePoint at) {
    add(R"({{"name":"microbatch","cat":"flow","ph":"{}","id":{},"pid":{},"tid":{},"ts":{:.3f}{}}})",
        begins ? "s" : "f", id, rank, kComputeRow, us(at - origin_), begins ? "" : R"(,"bp":"e")");
  }
  std::string finish() && { return std::move(text_) + "\n]}\n"; }

 private:
  static double us(Duration d) { return static_cast<double>(d.count()) * 1e-3; }
  template <typename... Args>
  void add(fmt::format_string<Args...> line, Args&&... args) {
    if (!std::exchange(first_, false)) text_ += ",\n";
    fmt::format_to(std::back_inserter(text_), line, std::forward<Args>(args)...);
  }

  TimePoint origin_;
  bool first_ = true;
  std::string text_ = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
};

}  // namespace

std::string trace_json(const std::vector<StageSteps>& ranks, TimePoint origin) {
  Writer writer(origin);
  uint64_t num_stages = 1;
  for (const StageSteps& rank : ranks)
    num_stages = std::max(num_stages, static_cast<uint64_t>(rank.stage.value) + 1);
  for (size_t i = 0; i < ranks.size(); ++i) {
    writer.name("process_name", i, 0, ranks[i].name);
    writer.name("thread_name", i, kComputeRow, "compute");
    writer.name("thread_name", i, kSendRow, "credit and send");
    const auto stage = static_cast<uint64_t>(ranks[i].stage.value);
    for (const StepEvent& event : ranks[i].events) {
      writer.span("compute", i, kComputeRow, event.compute_from, event.compute_until, event);
      if (event.credit_until > event.credit_from)
        writer.span("wait for credit", i, kSendRow, event.credit_from, event.credit_until, event);
      if (event.sent > event.compute_until)
        writer.span("send", i, kSendRow, event.compute_until, event.sent, event);
      // Of the arrow that ends here: no two microbatches of any lane and no two edges share one.
      const uint64_t id = (event.microbatch.value * 256 + event.lane) * num_stages + stage;
      if (stage > 0) writer.arrow(false, id, i, event.compute_from);
      if (stage + 1 < num_stages) writer.arrow(true, id + 1, i, event.compute_from);
    }
  }
  return std::move(writer).finish();
}

}  // namespace chainpump::cli
