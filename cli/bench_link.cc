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

/// Starts ucx_perftest on `core` with the transports of `m` and otherwise its own settings; its
/// output goes to `output`, or nowhere.
pid_t start_perftest(const LinkMeasurement& m, int core, std::vector<std::string> arguments,
                     int output) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  pin_to_core(core);
  setenv("UCX_TLS", m.kind == TransportKind::tcp ? "tcp" : "posix,cma,tcp", 1);
  setenv("UCX_NET_DEVICES", "lo", 1);
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

struct Row {
  LinkMeasurement measurement;  // without checksum
  std::string name;
  std::vector<double> plain;
  std::vector<double> checksum;
  std::vector<double> perftest;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<Row> rows() {
  std::vector<Row> result;
  for (const TransportKind kind : {TransportKind::tcp, TransportKind::shared_memory}) {
    const auto add = [&](LinkBenchmark benchmark, int64_t bytes, std::string_view what) {
      result.push_back({{kind, benchmark, bytes, false},
                        fmt::format("{} {}", transport::to_string(kind), what),
                        {},
                        {},
                        {}});
    };
    add(LinkBenchmark::latency_spinning, 8192, "8 KiB one way, spinning, us");
    add(LinkBenchmark::latency_sleeping, 8192, "8 KiB one way, sleeping, us");
    add(LinkBenchmark::bandwidth, 1 << 20, "1 MiB bandwidth, MiB/s");
    add(LinkBenchmark::bandwidth, 4 << 20, "4 MiB bandwidth, MiB/s");
  }
  return result;
}

Status measure(Row& row) {
  ASSIGN_OR_RETURN(const double plain, measure_our_link(row.measurement));
  row.plain.push_back(plain);
  ASSIGN_OR_RETURN(const double perftest, measure_ucx_perftest(row.measurement));
  row.perftest.push_back(perftest);
  LinkMeasurement with_checksum = row.measurement;
  with_checksum.checksum = true;
  ASSIGN_OR_RETURN(const double checksum, measure_our_link(with_checksum));
  row.checksum.push_back(checksum);
  return ok_status();
}

void print_table(const std::vector<Row>& table) {
  fmt::print("{:<46} {:>9} {:>9} {:>12} {:>7}\n", "", "ours", "with CRC", "ucx_perftest", "ratio");
  for (const Row& row : table) {
    fmt::print("{:<46} {:>9.1f} {:>9.1f} {:>12.1f} {:>7.2f}\n", row.name, median(row.plain),
               median(row.checksum), median(row.perftest),
               median(row.plain) / median(row.perftest));
  }
  fmt::print(
      "chainpump {} ({}), UCX {}; ratio: ours without CRC / ucx_perftest, which always "
      "spins.\n",
      release(), commit(), transport::UcxContext::library_version());
}

void print_json(const std::vector<Row>& table) {
  fmt::print("{{\"release\": \"{}\", \"commit\": \"{}\", \"ucx\": \"{}\", \"rows\": [", release(),
             commit(), transport::UcxContext::library_version());
  for (size_t i = 0; i < table.size(); ++i) {
    const Row& row = table[i];
    fmt::print(
        "{}\n {{\"name\": \"{}\", \"ours\": {:.3f}, \"ours_with_crc\": {:.3f}, "
        "\"ucx_perftest\": {:.3f}, \"ratio\": {:.4f}}}",
        i == 0 ? "" : ",", row.name, median(row.plain), median(row.checksum), median(row.perftest),
        median(row.plain) / median(row.perftest));
  }
  fmt::print("]}}\n");
}

}  // namespace

Result<double> measure_ucx_perftest(const LinkMeasurement& m) {
  const bool bandwidth = m.benchmark == LinkBenchmark::bandwidth;
  const std::string port = std::to_string(kPerftestPort);
  const pid_t server = start_perftest(m, 0, {std::string(kPerftest), "-p", port}, -1);
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(5);
  while (!is_listening(kPerftestPort) && steady_clock().now() < deadline) usleep(2000);

  int fds[2];
  if (pipe(fds) != 0) return make_error(ErrorCode::internal, "pipe: errno {}", errno);
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  const int64_t iterations = bandwidth ? (int64_t{1} << 31) / m.payload_bytes : 5000;
  const pid_t client =
      start_perftest(m, 1,
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
