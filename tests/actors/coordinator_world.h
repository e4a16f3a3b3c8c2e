// Coordinator and node agent over ranks that answer what they are asked at once, or when the test
// lets them; a store in memory, by which one coordinator follows another.
#pragma once

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "actors/deployment_actors.h"

namespace chainpump::actors {
using graph::LaneId;

inline const Error kLinkBroke{ErrorCode::disconnected, "output link: broke"};

/// What all ranks were asked, and what the observer was told; any thread.
class World {
 public:
  struct Repaired {
    std::vector<std::shared_ptr<RankPort>> ports;
    PlanEpoch first_since;
    RankId first_process;
  };

  template <typename F>
  auto locked(F&& use) {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
    return use();
  }
  template <typename F>
  void wait(F&& is_so) {
    std::unique_lock lock(mutex_);
    BOOST_TEST_REQUIRE(changed_.wait_for(lock, std::chrono::seconds(20), is_so));
  }

  std::vector<std::shared_ptr<RankPort>> ports;  // when it began to serve
  std::vector<Repaired> repaired;
  std::optional<Error> failure;
  bool stopped = false;
  std::map<uint32_t, int> spawned;  // by number
  RankHost::OnExit on_exit;
  // The last of each, by number of the process.
  std::map<uint32_t, rpc::ConnectParams> connects;
  std::map<uint32_t, PlanEpoch> fences;
  std::map<uint32_t, std::vector<rpc::LinkBeat>> links;  // what they say of them
  std::set<uint32_t> stuck;                              // their computing threads do nothing
  std::set<uint32_t> mute;                               // nor does any other
  std::vector<std::string> notices;
  std::vector<graph::LaneNews> news;  // one for each time; there is one lane
  std::map<uint32_t, rpc::Callback<Ok>> watches;
  std::map<uint32_t, rpc::Callback<rpc::HelloReply>> held_hellos;
  std::vector<rpc::StageHoldings> resumed_with;
  bool hold_hellos = false;
  std::map<uint32_t, rpc::LaneState> lanes;  // what each process knows of its lane
  std::optional<graph::DeploymentRecord> written;
  bool is_full = false;  // the disk

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

class AnsweringPort final : public RankPort {
 public:
  AnsweringPort(World& world, uint32_t number) : world_(world), number_(number) {}

  void hello(Duration, rpc::Callback<rpc::HelloReply> callback) override {
    const bool held = world_.locked([&] {
      if (world_.hold_hellos) world_.held_hellos[number_] = callback;
      return world_.hold_hellos;
    });
    if (!held) callback(rpc::HelloReply{});
  }
  void load(rpc::LoadParams params, Duration, rpc::ProgressCallback progress,
            rpc::Callback<rpc::LoadReport> callback) override {
    stage_ = place_of(from_wire_plan(params), RankId(params.rank)).stage.value;
    progress(1, 2);
    callback(rpc::LoadReport{.numerics_id = "same",
                             .listen_address = fmt::format("rank {}", number_),
                             .listen_port = 7,
                             .lanes = {world_.locked([&] { return world_.lanes[number_]; })}});
  }
  void connect(rpc::ConnectParams params, Duration, rpc::Callback<Ok> callback) override {
    world_.locked([&] {
      world_.lanes[number_] = {.lane = 0, .epoch = params.epoch, .linked = true, .at_work = true};
      world_.connects[number_] = std::move(params);
    });
    callback(Ok{});
  }
  void watch(bool of_links, rpc::Callback<Ok> callback) override {
    BOOST_TEST(of_links);
    world_.locked([&] { world_.watches[number_] = std::move(callback); });
  }
  void beat(Duration, rpc::Callback<rpc::BeatReply> callback) override {
    const bool mute = world_.locked([&] { return world_.mute.contains(number_); });
    if (mute) return;
    const bool stuck = world_.locked([&] { return world_.stuck.contains(number_); });
    rpc::BeatReply beat{.count = count_ += stuck ? 0 : 1};
    beat.links = world_.locked([&] { return world_.links[number_]; });
    callback(std::move(beat));
  }
  void fence(LaneId, PlanEpoch epoch, Duration,
             rpc::Callback<rpc::StageHoldings> callback) override {
    world_.locked([&] {
      world_.lanes[number_].at_work = false;
      world_.fences[number_] = epoch;
    });
    rpc::StageHoldings holdings;
    holdings.stage = stage_;
    holdings.sequences = {epoch.value};
    callback(std::move(holdings));
  }
  void resume(LaneId, PlanEpoch, std::vector<rpc::StageHoldings> stages, Duration,
              rpc::Callback<Ok> callback) override {
    world_.locked([&] { world_.resumed_with = std::move(stages); });
    callback(Ok{});
  }
  void take_in(rpc::KvCopy, Duration, rpc::Callback<rpc::KvAddress> callback) override {
    callback(rpc::KvAddress{});
  }
  void copy(rpc::KvCopy, Duration, rpc::ProgressCallback, rpc::Callback<Ok> callback) override {
    callback(Ok{});
  }
  void finish_copy(Duration, rpc::Callback<Ok> callback) override { callback(Ok{}); }
  void shutdown(Duration, rpc::Callback<Ok> callback) override {
    callback(Ok{});
    world_.on_exit(RankId(number_), "exit 0");
  }
  void attach(LaneId, std::function<void(rpc::LaneResults)>, Duration, rpc::Callback<Ok>) override {
  }
  void submit(LaneId, std::vector<rpc::GenerateRequest>, Duration, rpc::Callback<Ok>) override {}
  void cancel(LaneId, std::vector<uint64_t>, Duration, rpc::Callback<Ok>) override {}
  void stats(Duration, rpc::Callback<rpc::RankStats>) override {}
  void trace(uint64_t, Duration, rpc::Callback<StepEvents>) override {}

  uint32_t number() const { return number_; }

 private:
  static graph::Plan from_wire_plan(const rpc::LoadParams& params) {
    graph::Plan plan;
    plan.stages.resize(params.plan.stages.size());
    return plan;
  }
  World& world_;
  const uint32_t number_;
  int32_t stage_ = -1;
  std::atomic<uint64_t> count_{0};
};

class Host final : public RankHost {
 public:
  explicit Host(World& world) : world_(world) {}
  Result<std::shared_ptr<RankPort>> spawn(RankId number) override {
    world_.locked([&] {
      ++world_.spawned[number.value];
      world_.lanes[number.value] = {};
    });
    return std::shared_ptr<RankPort>(std::make_shared<AnsweringPort>(world_, number.value));
  }
  Result<std::vector<Found>> find() override {
    std::vector<Found> found;
    for (const uint32_t number : {0u, 1u, 2u})
      found.push_back({RankId(number), std::make_shared<AnsweringPort>(world_, number)});
    return found;
  }
  void kill(RankId number) override {
    world_.locked([&] { world_.stuck.erase(number.value), world_.mute.erase(number.value); });
    world_.on_exit(number, "killed by SIGKILL (Killed)");
  }

 private:
  World& world_;
};

/// In memory, of the world.
class Store final : public StateStore {
 public:
  explicit Store(World& world) : world_(world) {}
  Result<std::optional<graph::DeploymentRecord>> read() override {
    return world_.locked([&] { return world_.written; });
  }
  Status write(const graph::DeploymentRecord& record) override {
    return world_.locked([&]() -> Status {
      if (world_.is_full) return make_error(ErrorCode::no_room, "state.db: the disk is full");
      world_.written = record;
      return ok_status();
    });
  }
  Status clear() override {
    world_.locked([&] { world_.written.reset(); });
    return ok_status();
  }

 private:
  World& world_;
};

struct CoordinatorFixture {
  CoordinatorFixture() { begin(); }
  /// Two stages; the second has a standby: process 2. As a coordinator after another, if one wrote
  /// something.
  void begin() {
    graph::Plan plan;
    plan.stages.resize(2);
    plan.edges.resize(2);
    for (uint32_t i = 0; i < 2; ++i) {
      plan.stages[i].index = StageIndex(static_cast<int32_t>(i));
      plan.stages[i].name = i == 0 ? "front" : "back";
      plan.edges[i].id = EdgeId(i);
    }
    plan.stages[1].standbys = 1;
    DeploymentObserver observer;
    observer.on_progress = [](RankId, int64_t, int64_t) {};
    observer.on_serving = [this](auto ports, const auto&, const auto&) {
      world.locked([&] { world.ports = std::move(ports); });
    };
    observer.on_repaired = [this](auto ports, LaneId, LaneFirst first) {
      world.locked([&] {
        world.repaired.push_back({std::move(ports), first.since, first.process});
      });
    };
    observer.on_lanes = [this](const std::vector<graph::LaneNews>& lanes) {
      world.locked([&] { world.news.push_back(lanes.at(0)); });
    };
    observer.on_notice = [this](const std::string& what) {
      world.locked([&] { world.notices.push_back(what); });
    };
    observer.on_failed = [this](Error error) { world.locked([&] { world.failure = error; }); };
    observer.on_stopped = [this] { world.locked([&] { world.stopped = true; }); };
    auto made = DeploymentActors::create(
        {.plan = std::move(plan),
         .isa = "",
         .store = std::make_shared<Store>(world),
         .before = world.locked([&] { return world.written; })},
        [this](caf::actor_system&, RankHost::OnExit on_exit) {
          world.on_exit = std::move(on_exit);
          return Result<std::unique_ptr<RankHost>>(std::make_unique<Host>(world));
        },
        observer);
    BOOST_TEST_REQUIRE(made.ok());
    actors = *std::move(made);
    world.wait([&] { return !world.ports.empty(); });
  }
  ~CoordinatorFixture() {
    actors->request_stop();
    world.wait([&] { return world.stopped; });
    actors->end();
  }
  /// What a coordinator's death leaves: ranks, and what was written.
  void lose_coordinator() {
    actors->end();
    actors.reset();
    world.locked([&] {
      world.ports.clear();
      world.connects.clear();
      world.fences.clear();
      world.watches.clear();
    });
  }
  static uint32_t number(const std::shared_ptr<RankPort>& port) {
    return static_cast<const AnsweringPort&>(*port).number();
  }
  void repaired(size_t times) {
    world.wait([&] { return world.repaired.size() == times || world.failure; });
    BOOST_TEST_REQUIRE(!world.failure.has_value());
  }

  World world;
  std::unique_ptr<DeploymentActors> actors;
};

}  // namespace chainpump::actors
