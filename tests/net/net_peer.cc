// One end of links over a network that a test makes bad, told over standard input when to make the
// next one, as a coordinator would tell a rank:
//
//   net_peer send|receive DEVICE ADDRESS
//   link N PORT      make the link's incarnation N (a receiver ignores the port); what was is over
//   stay             keep the present link, and send on, whatever comes: a rank nobody can reach
//
// It says `port P`, then after each link's end `ended N FRAMES WRONG REFUSED why`, and `now N
// FRAMES` ten times a second. The frames of each link have numbers of its own; a body follows from
// its frame's number.
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>

#include "tests/transport/conformance.h"
#include "transport/ucx/ucx_context.h"
#include "transport/ucx/ucx_listener.h"
#include "transport/ucx/ucx_send_link.h"

namespace chainpump::transport {
namespace {

constexpr Duration kSayEvery = std::chrono::milliseconds(100);

LinkOptions options_of(uint32_t incarnation) {
  LinkOptions options = small_options();
  options.epoch = PlanEpoch(incarnation);
  options.incarnation = LinkIncarnation(incarnation);
  options.secret = 7;
  options.slot_payload_bytes = 32768;
  return options;
}
size_t payload_of(uint64_t number) { return number * 977 % 32768; }

class Peer {
 public:
  Peer(bool sends, std::shared_ptr<UcxContext> context, std::string address)
      : sends_(sends), context_(std::move(context)), address_(std::move(address)) {}

  int run() {
    if (!sends_) {
      auto listener = UcxListener::create(context_, {.bind = address_ + ":0"});
      if (!listener.ok()) return fail(listener.error());
      listener_ = std::move(*listener);
      const Status open = listener_->keep_open(true);
      if (!open.ok()) return fail(open.error());
      const std::string at = listener_->address();
      std::printf("port %s\n", at.substr(at.rfind(':') + 1).c_str());
    }
    std::fflush(stdout);
    while (true) {
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (::poll(&input, 1, link_ ? 0 : 20) > 0) {
        char text[256];
        const ssize_t got = ::read(STDIN_FILENO, text, sizeof text - 1);
        if (got <= 0) return 0;
        text[got] = '\0';
        if (const Status done = obey(text); !done.ok()) return fail(done.error());
      }
      if (sends_ && send_) step_sender();
      if (!sends_ && receive_) step_receiver();
      if (const TimePoint now = steady_clock().now(); now - said_ > kSayEvery) {
        said_ = now;
        std::printf("now %u %llu\n", incarnation_, static_cast<unsigned long long>(frames_));
        std::fflush(stdout);
      }
    }
  }

 private:
  static int fail(const Error& error) {
    std::fprintf(stderr, "net_peer: %s\n", error.message.c_str());
    return 1;
  }

  Status obey(const std::string& text) {
    std::istringstream words(text);
    std::string what;
    uint32_t port = 0;
    words >> what >> incarnation_ >> port;
    if (what != "link") return ok_status();
    frames_ = wrong_ = 0;
    last_ = next_ = uint64_t{incarnation_} << 32;
    send_.reset();
    receive_.reset();
    link_ = true;
    if (sends_) {
      ASSIGN_OR_RETURN(send_, ucx_connect(context_, address_ + ":" + std::to_string(port),
                                          options_of(incarnation_)));
    } else {
      ASSIGN_OR_RETURN(receive_, listener_->accept(options_of(incarnation_)));
    }
    return ok_status();
  }

  void step_sender() {
    send_->progress();
    if (auto slot = send_->try_acquire()) {
      const uint64_t number = ++next_;
      const auto body = pattern(number, payload_of(number));
      std::copy(body.begin(), body.end(), slot->payload().begin());
      if (send_
              ->send(std::move(slot), FrameKind::activation, MicrobatchId(number),
                     pattern(number + 1, 40), static_cast<int64_t>(body.size()))
              .ok())
        ++frames_;
    }
    if (send_->state() == LinkState::failed) end(*send_);
  }

  void step_receiver() {
    receive_->progress();
    while (const auto frame = receive_->try_receive()) {
      ++frames_;
      const uint64_t number = frame->microbatch().value;
      wrong_ += !is_pattern(*frame, number, 40, payload_of(number)) || number != ++last_ ||
                frame->epoch() != PlanEpoch(incarnation_);
    }
    if (receive_->state() == LinkState::failed) end(*receive_);
  }

  template <typename Link>
  void end(Link& link) {
    std::printf("ended %u %llu %llu %llu %s\n", incarnation_,
                static_cast<unsigned long long>(frames_), static_cast<unsigned long long>(wrong_),
                static_cast<unsigned long long>(link.stats().refused_frames),
                link.error().message.c_str());
    std::fflush(stdout);
    link_ = false;
    send_.reset();
    receive_.reset();
  }

  const bool sends_;
  const std::shared_ptr<UcxContext> context_;
  const std::string address_;  // to connect to, or to listen at
  std::unique_ptr<UcxListener> listener_;
  std::unique_ptr<SendLink> send_;
  std::unique_ptr<ReceiveLink> receive_;
  bool link_ = false;
  uint32_t incarnation_ = 0;
  uint64_t frames_ = 0;  // of this link
  uint64_t wrong_ = 0;   // that are not what was sent, or out of order
  uint64_t next_ = 0;
  uint64_t last_ = 0;
  TimePoint said_;
};

}  // namespace
}  // namespace chainpump::transport

int main(int argc, char** argv) {
  using namespace chainpump::transport;
  if (argc != 4) return 2;
  auto context = UcxContext::create({.kind = TransportKind::tcp, .net_devices = argv[2]});
  if (!context.ok()) {
    std::fprintf(stderr, "net_peer: %s\n", context.error().message.c_str());
    return 1;
  }
  return Peer(std::strcmp(argv[1], "send") == 0, *std::move(context), argv[3]).run();
}
