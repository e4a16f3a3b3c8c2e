#include "base/clock.h"

#include <ctime>

namespace chainpump {
namespace {
class SteadyClock final : public Clock {
 public:
  TimePoint now() const override {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return {std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec)};
  }
};
}  // namespace

const Clock& steady_clock() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace chainpump
