// `chainpump bench link`: our links beside ucx_perftest, in one job. Each measurement runs two
// fresh processes of ours, or two of ucx_perftest, on the same two cores over the same transport,
// with as many messages; the sides are interleaved round by round and medians are shown. The peer
// runs with its own settings and with those that our links use, and its better side counts.
// Bandwidth is measured with two slots, which stay in the caches as the one buffer that
// ucx_perftest sends again and again, and with eight, which do not. Figures are shown, never
// judged. Call before this process uses UCX or starts threads: it forks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "transport/ucx/ucx_context.h"

namespace chainpump::cli {

struct BenchLinkOptions {
  int rounds = 5;
  bool json = false;
};

/// Prints the table or JSON to standard output; returns the exit status (5 if a process failed).
int run_bench_link(const BenchLinkOptions& options);

enum class LinkBenchmark : uint8_t {
  latency_spinning,  // ping-pong, half a round trip
  latency_sleeping,  // one way, a frame each millisecond, both ends asleep between
  bandwidth,
};

struct LinkMeasurement {
  transport::TransportKind kind = transport::TransportKind::tcp;
  LinkBenchmark benchmark = LinkBenchmark::bandwidth;
  int64_t payload_bytes = 0;
  int32_t credits = 8;
  bool checksum = false;
};

/// One run of ours in two forked processes: microseconds, or MiB/s for bandwidth.
Result<double> measure_our_link(const LinkMeasurement& measurement);

/// One run of ucx_perftest (package ucx-utils), with its own settings or with our links': the same
/// unit. It has no sleeping receiver.
Result<double> measure_ucx_perftest(const LinkMeasurement& measurement, bool our_settings);

/// Runs the calling process on one core only.
void pin_to_core(int core);

}  // namespace chainpump::cli
