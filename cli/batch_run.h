// The lines of a batch through a service: as many under way as keep the engine busy, each answer
// appended as it comes. A thread for each line under way, which sleeps while it waits; the caller's
// shows progress. Thread rule: one thread runs it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include "cli/batch_answer.h"
#include "cli/batch_report.h"
#include "cli/service_pool.h"

namespace chainpump::cli {

class BatchRun {
 public:
  /// All of these must outlive it.
  BatchRun(const BatchInput& input, BatchOutput& output, ServicePool& services, BatchTerms terms,
           UnderWay& under_way);

  /// Until every line has its entry, or the first error of the service, of the output, or of
  /// whoever stops `under_way`. Once.
  Status run();

  BatchCounts counts();
  Duration elapsed() const { return steady_clock().now() - started_; }

 private:
  Result<std::string> system_fingerprint();
  Status work(BatchAnswerer& answerer, size_t num_workers);
  void work_on_lines(BatchAnswerer& answerer, gateway::Service& service);
  std::optional<size_t> next_line();
  Status append(const BatchEntry& entry);
  void show_progress_until_done();

  const BatchInput& input_;
  BatchOutput& output_;
  ServicePool& services_;
  const BatchTerms terms_;
  UnderWay& under_way_;
  const TimePoint started_ = steady_clock().now();

  std::mutex mutex_;
  std::condition_variable ended_;
  BatchCounts counts_;
  size_t next_ = 0;         // of the input's lines
  size_t num_working_ = 0;  // workers
};

}  // namespace chainpump::cli
