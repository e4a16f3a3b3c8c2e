#include "cli/bench_link.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "base/version.h"

namespace chainpump::cli {
namespace {

using transport::TransportKind;

constexpr int kPerftestPort = 13377;
constexpr std::string_view kPerftest = "ucx_perftest";

/// Starts ucx_perftest on `core` with the transports of `m`; its output goes to `output`, or
/// nowhere.
pid_t start_perftest(const LinkMeasurement& m, bool our_settings, int core,
                     std::vector<std::string> arguments, int output) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  pin_to_core(core);
  setenv("UCX_TLS", m.kind == TransportKind::tcp ? "tcp" : "posix,cma,tcp", 1);
  setenv("UCX_NET_DEVICES", "lo", 1);
  if (our_settings) {
    for (const auto& [name, value] : transport::UcxContext::environment(m.kind)) {
      setenv(name.c_str(), value.c_str(), 1);
    }
  }
  const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(output >= 0 ? output : nowhere, STDOUT_FILENO);
  dup2(nowhere, STDERR_FILENO);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

/// Whether somebody listens on `port`: connecting to find out would use up the server's one turn.
bool is_listening(int port) {
  const std::string wanted = fmt::format(":{:04X}", port);
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(table);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string number;
      std::string local;
      std::string remote;
      std::string state;
      words >> number >> local >> remote >> state;
      if (state == "0A" && local.ends_with(wanted)) return true;
    }
  }
  return false;
}

// The last line of `ucx_perftest -f`: iterations, typical, average, overall latency in us, average
// and overall MB/s (of 2^20), average and overall message rate.
Result<double> parse_perftest(const std::string& output, LinkBenchmark benchmark) {
  std::istringstream lines(output);
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  }
  std::istringstream words(last);
  std::vector<double> figures;
  for (double figure; words >> figure;) figures.push_back(figure);
  if (figures.size() != 8) {
    return make_error(ErrorCode::internal, "ucx_perftest said what we do not understand: {}", last);
  }
  return benchmark == LinkBenchmark::bandwidth ? figures[5] : figures[1];
}

enum Side : size_t { kOurs, kOurs8, kChecksum, kPeer, kPeerTuned, kNumSides };
constexpr std::array<std::string_view, kNumSides> kSideNames = {
    "ours", "ours_8_credits", "ours_with_crc", "ucx_perftest", "ucx_perftest_our_settings"};

struct Row {
  LinkMeasurement measurement;
  std::string name;
  std::array<std::vector<double>, kNumSides> rounds;  // of each side, in the order measured
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool is_bandwidth(const Row& row) { return row.measurement.benchmark == LinkBenchmark::bandwidth; }

std::vector<Row> rows() {
  std::vector<Row> result;
  for (const TransportKind kind : {TransportKind::tcp, TransportKind::shared_memory}) {
    const auto add = [&](LinkBenchmark benchmark, int64_t bytes, std::string_view what) {
      const int32_t credits = benchmark == LinkBenchmark::bandwidth ? 2 : 8;
      result.push_back({{kind, benchmark, bytes, credits, false},
                        fmt::format("{} {}", transport::to_string(kind), what),
                        {}});
    };
    add(LinkBenchmark::latency_spinning, 8192, "8 KiB one way, spinning, us");
    add(LinkBenchmark::latency_sleeping, 8192, "8 KiB one way, sleeping, us");
    add(LinkBenchmark::bandwidth, 1 << 20, "1 MiB bandwidth, MiB/s");
    add(LinkBenchmark::bandwidth, 4 << 20, "4 MiB bandwidth, MiB/s");
  }
  return result;
}

Result<double> measure(const LinkMeasurement& measurement, Side side) {
  LinkMeasurement m = measurement;
  if (side == kOurs8) m.credits = 8;
  m.checksum = side == kChecksum;
  if (side == kPeer || side == kPeerTuned) return measure_ucx_perftest(m, side == kPeerTuned);
  return measure_our_link(m);
}

Status measure(Row& row) {
  for (size_t side = 0; side < kNumSides; ++side) {
    if (side == kOurs8 && !is_bandwidth(row)) continue;
    ASSIGN_OR_RETURN(const double figure, measure(row.measurement, static_cast<Side>(side)));
    row.rounds[side].push_back(figure);
  }
  return ok_status();
}

/// The median over the rounds of side / peer, the peer with the settings that serve it better.
double ratio(const Row& row, Side side) {
  const bool tuned =
      (median(row.rounds[kPeerTuned]) > median(row.rounds[kPeer])) == is_bandwidth(row);
  const std::vector<double>& peer = row.rounds[tuned ? kPeerTuned : kPeer];
  std::vector<double> ratios;
  for (size_t i = 0; i < row.rounds[side].size(); ++i) {
    ratios.push_back(row.rounds[side][i] / peer[i]);
  }
  return median(std::move(ratios));
}

void print_table(const std::vector<Row>& table) {
  fmt::print("{:<42} {:>8} {:>10} {:>9} {:>13} {:>13} {:>7} {:>10}\n", "", "ours", "8 credits",
             "with CRC", "ucx_perftest", "our settings", "ratio", "8 credits");
  for (const Row& row : table) {
    const auto cell = [&](Side side, double figure, int digits) {
      return row.rounds[side].empty() ? std::string("-") : fmt::format("{:.{}f}", figure, digits);
    };
    const auto shown = [&](Side side) { return cell(side, median(row.rounds[side]), 1); };
    fmt::print("{:<42} {:>8} {:>10} {:>9} {:>13} {:>13} {:>7.2f} {:>10}\n", row.name, shown(kOurs),
               shown(kOurs8), shown(kChecksum), shown(kPeer), shown(kPeerTuned), ratio(row, kOurs),
               cell(kOurs8, ratio(row, kOurs8), 2));
  }
  fmt::print(
      "chainpump {} ({}), UCX {}; medians of {} rounds; ratio: ours without CRC / ucx_perftest "
      "(the "
      "better of its own and our UCX settings), round by round; it always spins. Bandwidth: two "
      "slots, beside it eight.\n",
      release(), commit(), transport::UcxContext::library_version(), table[0].rounds[kOurs].size());
}

void print_json(const std::vector<Row>& table) {
  fmt::print("{{\"release\": \"{}\", \"commit\": \"{}\", \"ucx\": \"{}\", \"rows\": [", release(),
             commit(), transport::UcxContext::library_version());
  for (size_t i = 0; i < table.size(); ++i) {
    const Row& row = table[i];
    fmt::print("{}\n {{\"name\": \"{}\"", i == 0 ? "" : ",", row.name);
    for (size_t side = 0; side < kNumSides; ++side) {
      if (row.rounds[side].empty()) continue;
      fmt::print(", \"{}\": {:.3f}", kSideNames[side], median(row.rounds[side]));
    }
    fmt::print(", \"ratio\": {:.4f}", ratio(row, kOurs));
    if (is_bandwidth(row)) fmt::print(", \"ratio_8_credits\": {:.4f}", ratio(row, kOurs8));
    fmt::print("}}");
  }
  fmt::print("]}}\n");
}

}  // namespace

Result<double> measure_ucx_perftest(const LinkMeasurement& m, bool our_settings) {
  const bool bandwidth = m.benchmark == LinkBenchmark::bandwidth;
  const std::string port = std::to_string(kPerftestPort);
  const pid_t server = start_perftest(m, our_settings, 0, {std::string(kPerftest), "-p", port}, -1);
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(5);
  while (!is_listening(kPerftestPort) && steady_clock().now() < deadline) usleep(2000);

  int fds[2];
  if (pipe(fds) != 0) return make_error(ErrorCode::internal, "pipe: errno {}", errno);
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  const int64_t iterations = bandwidth ? (int64_t{1} << 31) / m.payload_bytes : 5000;
  const pid_t client =
      start_perftest(m, our_settings, 1,
                     {std::string(kPerftest), "127.0.0.1", "-p", port, "-t",
                      bandwidth ? "ucp_am_bw" : "ucp_am_lat", "-s", std::to_string(m.payload_bytes),
                      "-n", std::to_string(iterations), "-w", "50", "-f"},
                     write_end.get());
  write_end.reset();
  std::string output;
  std::array<char, 4096> chunk;
  for (ssize_t n; (n = read(read_end.get(), chunk.data(), chunk.size())) > 0;) {
    output.append(chunk.data(), static_cast<size_t>(n));
  }
  int status = 0;
  waitpid(client, &status, 0);
  if (status != 0) kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  if (status != 0) {
    return make_error(ErrorCode::not_found,
                      "ucx_perftest failed (status {}); it is in Debian's package ucx-utils",
                      status);
  }
  return parse_perftest(output, m.benchmark);
}

int run_bench_link(const BenchLinkOptions& options) {
  std::vector<Row> table = rows();
  for (int round = 0; round < options.rounds; ++round) {
    for (Row& row : table) {
      fmt::print(stderr, "round {} of {}: {}\n", round + 1, options.rounds, row.name);
      const Status measured = measure(row);
      if (!measured.ok()) {
        fmt::print(stderr, "bench link: {}: {}\n", row.name, measured.error().message);
        return 5;
      }
    }
  }
  if (options.json) {
    print_json(table);
  } else {
    print_table(table);
  }
  return 0;
}

}  // namespace chainpump::cli
