// Drives a load through a service: each request is sent at its instant by a thread of its own,
// whatever has become of those before it. Thread rule: one thread runs it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cli/load.h"
#include "cli/serve_figures.h"
#include "cli/service_pool.h"
#include "cli/under_way.h"

namespace chainpump::cli {

class LoadRun {
 public:
  /// All of these must outlive it.
  LoadRun(const std::vector<Arrival>& arrivals, uint64_t seed, ServicePool& services,
          UnderWay& under_way);

  /// Until the last request has ended, or `under_way` is stopped. Accounts of those requests that
  /// have ended, in the order of their arrival. overloaded if more had to be under way than one
  /// client can have. Once.
  Result<std::vector<ServedRequest>> run();

 private:
  bool wait_for(const Arrival& arrival);
  Status give_away(size_t index);
  void serve(gateway::Service& service);
  ServedRequest serve_one(gateway::Service& service, size_t index);
  Duration now() const { return steady_clock().now() - started_; }

  const std::vector<Arrival>& arrivals_;
  const uint64_t seed_;
  ServicePool& services_;
  UnderWay& under_way_;
  TimePoint started_;

  std::mutex mutex_;
  std::condition_variable work_;
  std::vector<size_t> waiting_;  // arrivals that have been given away and not taken
  size_t num_idle_ = 0;          // threads
  bool closing_ = false;
  std::vector<std::optional<ServedRequest>> served_;
  std::vector<std::thread> threads_;
};

}  // namespace chainpump::cli
