#include "transport/armed_fault.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>
#include <utility>

namespace chainpump::transport {
namespace {

constexpr uint32_t kCountMax = 1'000'000;
constexpr double kFactorMax = 1000;
constexpr Duration kLastsMax = std::chrono::seconds(60);
constexpr Duration kStretchMax = std::chrono::seconds(2);  // of one step
constexpr Duration kBeatEvery = std::chrono::milliseconds(20);

}  // namespace

std::string_view to_string(FaultPoint point) {
  switch (point) {
    case FaultPoint::after_receive:
      return "after-receive";
    case FaultPoint::before_send:
      return "before-send";
    case FaultPoint::mid_frame:
      return "mid-frame";
    case FaultPoint::after_kv_write:
      return "after-kv-write";
    case FaultPoint::fencing:
      return "fencing";
    case FaultPoint::connecting:
      return "connecting";
    case FaultPoint::filling:
      return "filling";
  }
  return "?";
}

Status check_fault(const FaultOrder& order) {
  using Kind = FaultOrder::Kind;
  const bool counts = order.kind == Kind::death || order.kind == Kind::damage;
  const bool lasts = order.kind == Kind::slowness || order.kind == Kind::silence;
  if (counts && (order.count < 1 || order.count > kCountMax))
    return make_error(ErrorCode::invalid_argument, "a fault's count is {}, must be 1 to {}",
                      order.count, kCountMax);
  if (lasts && (order.lasts <= Duration(0) || order.lasts > kLastsMax))
    return make_error(ErrorCode::invalid_argument,
                      "a fault lasts {} s, must be above 0, at most {}", to_seconds(order.lasts),
                      to_seconds(kLastsMax));
  if (order.kind == Kind::slowness && !(order.factor >= 1 && order.factor <= kFactorMax))
    return make_error(ErrorCode::invalid_argument, "a fault's factor is {}, must be 1 to {}",
                      order.factor, kFactorMax);
  if (order.kind == Kind::silence && !order.of_input && !order.of_output)
    return make_error(ErrorCode::invalid_argument, "a silence of neither input nor output");
  return ok_status();
}

ArmedFault::ArmedFault(const Clock& clock, Beat* beat, Death death)
    : clock_(clock), beat_(beat), death_(std::move(death)) {}

void ArmedFault::arm(const FaultOrder& order) {
  order_ = order;
  left_ = order.count;
  until_ = clock_.now() + order.lasts;
}

void ArmedFault::kill_this_process(FaultPoint point) {
  std::fprintf(stderr, "chainpump rank: process %d dies at %s, as it was told\n", ::getpid(),
               to_string(point).data());
  std::fflush(stderr);
  ::kill(::getpid(), SIGKILL);
  while (true) ::pause();
}

/// True at the passing that was asked for, and never again.
bool ArmedFault::count_down(FaultPoint point) {
  if (point != order_.point || left_ == 0) return false;
  return --left_ == 0;
}

void ArmedFault::count_passing(FaultPoint point) {
  // In the middle of a frame is nowhere that anybody could pass without sending one.
  if (point != FaultPoint::mid_frame && count_down(point)) die(point);
}

bool ArmedFault::is_over() {
  if (clock_.now() < until_) return false;
  order_ = {};
  return true;
}

void ArmedFault::wait_for_rest(Duration spent) {
  if (is_over()) return;
  const auto rest = std::chrono::duration_cast<Duration>(spent * (order_.factor - 1));
  const TimePoint end = clock_.now() + std::min(rest, kStretchMax);
  for (Duration left = end - clock_.now(); left > Duration(0); left = end - clock_.now()) {
    std::this_thread::sleep_for(std::min(left, kBeatEvery));
    if (beat_ != nullptr) beat_->tick();
  }
}

void ArmedFault::damage_if_due(std::span<std::byte> header, std::span<std::byte> body,
                               bool has_body_crc) {
  if (left_ == 0 || --left_ > 0) return;
  const bool in_header = order_.of_header || body.empty() || !has_body_crc;
  const std::span<std::byte> hit = in_header ? header : body;
  hit[hit.size() / 2] ^= std::byte{0x10};
  order_ = {};
}

}  // namespace chainpump::transport
