// The two processes of one measurement of our own links.
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"
#include "cli/bench_link.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"
#include "transport/waiter.h"

namespace chainpump::cli {
namespace {

using namespace transport;

constexpr Duration kRunDeadline = std::chrono::seconds(60);
constexpr int kWarmUpFrames = 50;

int num_frames(const LinkMeasurement& m) {
  switch (m.benchmark) {
    case LinkBenchmark::latency_spinning:
      return 5000;
    case LinkBenchmark::latency_sleeping:
      return 500;
    case LinkBenchmark::bandwidth:
      return static_cast<int>((int64_t{1} << 31) / m.payload_bytes);
  }
  return 0;
}

/// One process's two links: it sends on one and receives on the other.
class Peer {
 public:
  Peer(const LinkMeasurement& m, bool first)
      : measurement_(m),
        first_(first),
        waiter_({.spin_always = m.benchmark != LinkBenchmark::latency_sleeping}),
        deadline_(steady_clock().now() + kRunDeadline) {}

  Status connect(int read_fd, int write_fd) {
    ASSIGN_OR_RETURN(auto context, UcxContext::create({.kind = measurement_.kind}));
    ASSIGN_OR_RETURN(listener_, UcxListener::create(context, {}));
    ASSIGN_OR_RETURN(receive_, listener_->accept(options(!first_)));
    std::array<char, 64> address{};
    listener_->address().copy(address.data(), address.size() - 1);
    if (write(write_fd, address.data(), address.size()) != ssize_t{address.size()} ||
        read(read_fd, address.data(), address.size()) != ssize_t{address.size()}) {
      return make_error(ErrorCode::disconnected, "the other process is gone");
    }
    ASSIGN_OR_RETURN(send_, ucx_connect(context, address.data(), options(first_)));
    while (send_->state() == LinkState::connecting || receive_->state() == LinkState::connecting) {
      send_->progress();
      receive_->progress();
    }
    waiter_.add(
        {[this] { return send_->progress(); }, [this] { return send_->arm(); }, send_->event_fd()});
    waiter_.add({[this] { return receive_->progress(); }, [this] { return receive_->arm(); },
                 receive_->event_fd()});
    return check();
  }

  Result<double> run();

 private:
  LinkOptions options(bool first_to_second) const {
    LinkOptions o;
    o.edge = EdgeId(first_to_second ? 1 : 2);
    o.secret = 42;
    o.credits = measurement_.credits;
    o.slot_payload_bytes = std::max<int64_t>(measurement_.payload_bytes, 64);
    o.slot_metadata_bytes = 64;
    o.checksum_payload = measurement_.checksum;
    return o;
  }
  Status check() const {
    if (send_->state() == LinkState::failed) return send_->error();
    if (receive_->state() == LinkState::failed) return receive_->error();
    if (steady_clock().now() >= deadline_) {
      return make_error(ErrorCode::deadline_exceeded, "the measurement took too long");
    }
    return ok_status();
  }
  Status send(int64_t payload_bytes) {
    std::unique_ptr<SendSlot> slot;
    while (!(slot = send_->try_acquire())) {
      waiter_.wait_until(deadline_);
      RETURN_IF_ERROR(check());
    }
    const int64_t now = steady_clock().now().since_epoch.count();
    std::memcpy(slot->payload().data(), &now, sizeof now);
    return send_->send(std::move(slot), FrameKind::activation, MicrobatchId(1), {}, payload_bytes);
  }
  /// The frame's age in microseconds when it was received.
  Result<double> receive() {
    std::unique_ptr<ReceivedFrame> frame;
    while (!(frame = receive_->try_receive())) {
      waiter_.wait_until(deadline_);
      RETURN_IF_ERROR(check());
    }
    int64_t sent_ns = 0;
    std::memcpy(&sent_ns, frame->payload().data(), sizeof sent_ns);
    return to_ms(steady_clock().now() - TimePoint{Duration(sent_ns)}) * 1e3;
  }
  Result<double> ping_pong();
  Result<double> trickle();
  Result<double> flood();

  LinkMeasurement measurement_;
  bool first_;
  std::unique_ptr<UcxListener> listener_;
  std::unique_ptr<SendLink> send_;
  std::unique_ptr<ReceiveLink> receive_;
  Waiter waiter_;
  TimePoint deadline_;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

Result<double> Peer::ping_pong() {
  std::vector<double> half_round_trips;
  for (int i = 0; i < num_frames(measurement_) + kWarmUpFrames; ++i) {
    const TimePoint start = steady_clock().now();
    if (first_) RETURN_IF_ERROR(send(measurement_.payload_bytes));
    RETURN_IF_ERROR(receive());
    if (!first_) RETURN_IF_ERROR(send(measurement_.payload_bytes));
    if (i >= kWarmUpFrames) {
      half_round_trips.push_back(to_ms(steady_clock().now() - start) * 1e3 / 2);
    }
  }
  return median(std::move(half_round_trips));
}

Result<double> Peer::trickle() {
  std::vector<double> ages;
  for (int i = 0; i < num_frames(measurement_); ++i) {
    if (first_) {
      const timespec gap{0, 1'000'000};
      nanosleep(&gap, nullptr);
      send_->progress();
      RETURN_IF_ERROR(send(measurement_.payload_bytes));
    } else {
      ASSIGN_OR_RETURN(const double age, receive());
      ages.push_back(age);
    }
  }
  if (!first_) return median(std::move(ages));
  return 0.0;
}

Result<double> Peer::flood() {
  const int frames = num_frames(measurement_);
  TimePoint start;
  for (int i = 0; i < frames + kWarmUpFrames; ++i) {
    if (i == kWarmUpFrames) start = steady_clock().now();
    if (first_) {
      RETURN_IF_ERROR(send(measurement_.payload_bytes));
    } else {
      RETURN_IF_ERROR(receive());
    }
  }
  const double seconds = to_seconds(steady_clock().now() - start);
  return static_cast<double>(frames) * static_cast<double>(measurement_.payload_bytes) / seconds /
         (1 << 20);
}

Result<double> Peer::run() {
  Result<double> figure = 0.0;
  switch (measurement_.benchmark) {
    case LinkBenchmark::latency_spinning:
      figure = ping_pong();
      break;
    case LinkBenchmark::latency_sleeping:
      figure = trickle();
      break;
    case LinkBenchmark::bandwidth:
      figure = flood();
      break;
  }
  if (!figure.ok()) return figure;
  send_->close();
  while (send_->state() == LinkState::closing || receive_->state() == LinkState::open ||
         receive_->state() == LinkState::closing) {
    send_->progress();
    receive_->progress();
    if (steady_clock().now() >= deadline_) break;
  }
  return figure;
}

/// In the child: never returns.
[[noreturn]] void be_peer(const LinkMeasurement& m, bool first, int read_fd, int write_fd,
                          int result_fd) {
  pin_to_core(first ? 1 : 0);
  Peer peer(m, first);
  const Status connected = peer.connect(read_fd, write_fd);
  const Result<double> figure = connected.ok() ? peer.run() : Result<double>(connected.error());
  if (!figure.ok()) fmt::print(stderr, "bench link: {}\n", figure.error().message);
  const double value = figure.ok() ? *figure : -1.0;
  const bool told = write(result_fd, &value, sizeof value) == ssize_t{sizeof value};
  _exit(told && figure.ok() ? 0 : 1);
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (pipe(fds) != 0) return make_error(ErrorCode::internal, "pipe: {}", strerror(errno));
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace

void pin_to_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(core), &set);
  sched_setaffinity(0, sizeof set, &set);  // with one core only, the system's choice stands
}

Result<double> measure_our_link(const LinkMeasurement& m) {
  ASSIGN_OR_RETURN(Pipe to_second, make_pipe());
  ASSIGN_OR_RETURN(Pipe to_first, make_pipe());
  ASSIGN_OR_RETURN(Pipe first_result, make_pipe());
  ASSIGN_OR_RETURN(Pipe second_result, make_pipe());
  const pid_t second = fork();
  if (second == 0) {
    be_peer(m, false, to_second.read_end.get(), to_first.write_end.get(),
            second_result.write_end.get());
  }
  const pid_t first = fork();
  if (first == 0) {
    be_peer(m, true, to_first.read_end.get(), to_second.write_end.get(),
            first_result.write_end.get());
  }
  for (Pipe* p : {&to_second, &to_first, &first_result, &second_result}) p->write_end.reset();
  // The receiving side's figure: it has seen every frame.
  double value = -1;
  const bool got =
      read(second_result.read_end.get(), &value, sizeof value) == ssize_t{sizeof value};
  for (const pid_t pid : {first, second}) waitpid(pid, nullptr, 0);
  if (!got || value < 0) return make_error(ErrorCode::internal, "a measuring process failed");
  return value;
}

}  // namespace chainpump::cli
