// Where a coordinator's record is kept, as actors/store/state_store.h: in place of the one before,
// as a whole or not at all, and there before write() is answered. A write may take long, or fail;
// of one that was under way when its coordinator died nobody knows whether it was done. One thread.
#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "graph/deployment_record.h"
#include "tests/sim/sim_world.h"

namespace chainpump::sim {

class SimStore {
 public:
  explicit SimStore(SimWorld& world) : world_(world) {}

  void write(const graph::DeploymentRecord& record, std::function<void(Status)> done) {
    const Duration takes = std::exchange(next_takes_, Duration(0)) + world_.random.up_to(kUsual);
    world_.disturb_for(takes);
    under_way_ = record;
    const bool fails = std::exchange(next_fails_, false);
    world_.after(takes, [this, fails, number = ++last_write_, done = std::move(done)] {
      if (number != last_write_ || !under_way_) return;
      if (fails) {
        under_way_.reset();
        return done(make_error(ErrorCode::no_room, "the disk is full"));
      }
      put();
      done(ok_status());
    });
  }
  /// Its coordinator has died.
  void settle() {
    if (under_way_ && world_.random.chance(2)) put();
    under_way_.reset();
  }
  std::optional<graph::DeploymentRecord> read() const {
    return world_.plant == Plant::record_stale && before_ ? before_ : record_;
  }
  void write_slowly(Duration lasts) { next_takes_ = lasts; }
  void fail_next() { next_fails_ = true; }

 private:
  static constexpr Duration kUsual = std::chrono::microseconds(300);
  void put() {
    before_ = std::move(record_);
    record_ = std::move(under_way_);
    under_way_.reset();
  }

  SimWorld& world_;
  std::optional<graph::DeploymentRecord> record_;
  std::optional<graph::DeploymentRecord> before_;  // planted
  std::optional<graph::DeploymentRecord> under_way_;
  uint64_t last_write_ = 0;
  Duration next_takes_{0};
  bool next_fails_ = false;
};

}  // namespace chainpump::sim
