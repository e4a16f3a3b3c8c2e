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

  void name(const char* what, size_t stage, int row, const std::string& name) {
    add(R"({{"name":"{}","ph":"M","pid":{},"tid":{},"args":{{"name":{}}}}})", what, stage, row,
        nlohmann::json(name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  void span(const char* what, size_t stage, int row, TimePoint from, TimePoint until,
            const StepEvent& event) {
    add(R"({{"name":"{} {}","cat":"{}","ph":"X","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},)"
        R"("args":{{"microbatch":{},"tokens":{},"queued_us":{:.3f}}}}})",
        what, event.microbatch.value, what, stage, row, us(from - origin_),
        us(std::max(until - from, Duration(0))), event.microbatch.value, event.num_tokens,
        us(event.compute_from - event.received));
  }
  /// One end of an arrow; ends of equal ids belong together.
  void arrow(bool begins, uint64_t id, size_t stage, TimePoint at) {
    add(R"({{"name":"microbatch","cat":"flow","ph":"{}","id":{},"pid":{},"tid":{},"ts":{:.3f}{}}})",
        begins ? "s" : "f", id, stage, kComputeRow, us(at - origin_), begins ? "" : R"(,"bp":"e")");
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

std::string trace_json(const std::vector<StageSteps>& stages, TimePoint origin) {
  Writer writer(origin);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    writer.name("process_name", stage, 0, stages[stage].name);
    writer.name("thread_name", stage, kComputeRow, "compute");
    writer.name("thread_name", stage, kSendRow, "credit and send");
    for (const StepEvent& event : stages[stage].events) {
      writer.span("compute", stage, kComputeRow, event.compute_from, event.compute_until, event);
      if (event.credit_until > event.credit_from)
        writer.span("wait for credit", stage, kSendRow, event.credit_from, event.credit_until,
                    event);
      if (event.sent > event.compute_until)
        writer.span("send", stage, kSendRow, event.compute_until, event.sent, event);
      const uint64_t id = event.microbatch.value * (stages.size() + 1) + stage;
      if (stage > 0) writer.arrow(false, id, stage, event.compute_from);
      if (stage + 1 < stages.size()) writer.arrow(true, id + 1, stage, event.compute_from);
    }
  }
  return std::move(writer).finish();
}

}  // namespace chainpump::cli
