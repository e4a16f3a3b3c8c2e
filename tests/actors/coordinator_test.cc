// The coordinator and the node agent with ranks that answer what they are asked at once, or when
// the test lets them.
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "actors/deployment_actors.h"

namespace chainpump::actors {
namespace {

using graph::LaneId;

const LaneId kLane{0};
const Error kLinkBroke{ErrorCode::disconnected, "output link: broke"};

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
  std::set<uint32_t> stuck;  // their computing threads do nothing
  std::set<uint32_t> mute;   // nor does any other
  std::vector<std::string> notices;
  std::map<uint32_t, rpc::Callback<Ok>> watches;
  std::map<uint32_t, rpc::Callback<rpc::HelloReply>> held_hellos;
  std::vector<rpc::StageHoldings> resumed_with;
  bool hold_hellos = false;

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
                             .listen_port = 7});
  }
  void connect(rpc::ConnectParams params, Duration, rpc::Callback<Ok> callback) override {
    world_.locked([&] { world_.connects[number_] = std::move(params); });
    callback(Ok{});
  }
  void watch(bool of_links, rpc::Callback<Ok> callback) override {
    BOOST_TEST(of_links);
    world_.locked([&] { world_.watches[number_] = std::move(callback); });
  }
  void beat(Duration, rpc::Callback<uint64_t> callback) override {
    const bool mute = world_.locked([&] { return world_.mute.contains(number_); });
    if (mute) return;
    const bool stuck = world_.locked([&] { return world_.stuck.contains(number_); });
    callback(count_ += stuck ? 0 : 1);
  }
  void fence(LaneId, PlanEpoch epoch, Duration,
             rpc::Callback<rpc::StageHoldings> callback) override {
    world_.locked([&] { world_.fences[number_] = epoch; });
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
    world_.locked([&] { ++world_.spawned[number.value]; });
    return std::shared_ptr<RankPort>(std::make_shared<AnsweringPort>(world_, number.value));
  }
  void kill(RankId number) override {
    world_.locked([&] { world_.stuck.erase(number.value), world_.mute.erase(number.value); });
    world_.on_exit(number, "killed by SIGKILL (Killed)");
  }

 private:
  World& world_;
};

struct Fixture {
  /// Two stages; the second has a standby: process 2.
  Fixture() {
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
    observer.on_serving = [this](auto ports, const auto&) {
      world.locked([&] { world.ports = std::move(ports); });
    };
    observer.on_repaired = [this](auto ports, LaneId, PlanEpoch first_since, RankId process) {
      world.locked([&] { world.repaired.push_back({std::move(ports), first_since, process}); });
    };
    observer.on_notice = [this](const std::string& what) {
      world.locked([&] { world.notices.push_back(what); });
    };
    observer.on_failed = [this](Error error) { world.locked([&] { world.failure = error; }); };
    observer.on_stopped = [this] { world.locked([&] { world.stopped = true; }); };
    auto made = DeploymentActors::create(
        {.plan = std::move(plan), .isa = ""},
        [this](caf::actor_system&, RankHost::OnExit on_exit) {
          world.on_exit = std::move(on_exit);
          return Result<std::unique_ptr<RankHost>>(std::make_unique<Host>(world));
        },
        observer);
    BOOST_TEST_REQUIRE(made.ok());
    actors = *std::move(made);
    world.wait([&] { return !world.ports.empty(); });
  }
  ~Fixture() {
    actors->request_stop();
    world.wait([&] { return world.stopped; });
    actors->end();
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

}  // namespace

BOOST_FIXTURE_TEST_SUITE(coordinator, Fixture)

BOOST_AUTO_TEST_CASE(a_repair_has_new_links_and_what_the_others_hold) {
  const auto before = world.locked([&] { return world.connects; });
  BOOST_TEST(before.size() == 2u);  // the standby has no links
  BOOST_TEST(before.at(0).epoch == 1u);
  BOOST_TEST(before.at(0).links.at(0).address == "rank 1");
  BOOST_TEST(before.at(0).links.at(0).secret == before.at(1).accept.at(0).secret);

  world.on_exit(RankId(1), "killed by SIGKILL (Killed)");
  repaired(1);
  auto connects = world.locked([&] { return world.connects; });
  const rpc::ConnectParams& front = connects.at(0);
  const rpc::ConnectParams& back = connects.at(2);
  BOOST_TEST(front.epoch == 2u);
  BOOST_TEST(front.links.at(0).address == "rank 2");
  BOOST_TEST(back.links.at(0).address == "rank 0");
  BOOST_TEST(front.links.at(0).edge == 0u);
  BOOST_TEST(front.accept.at(0).edge == 1u);
  BOOST_TEST(front.links.at(0).incarnation == 2u);
  BOOST_TEST(front.links.at(0).secret == back.accept.at(0).secret);
  BOOST_TEST(back.links.at(0).secret == front.accept.at(0).secret);
  BOOST_TEST(front.links.at(0).secret != before.at(0).links.at(0).secret);
  world.locked([&] {
    BOOST_TEST((world.repaired[0].first_since == PlanEpoch(1)));
    BOOST_TEST(number(world.repaired[0].ports[1]) == 2u);
    BOOST_TEST_REQUIRE(world.resumed_with.size() == 1u);
    BOOST_TEST(world.resumed_with[0].stage == 0);
    BOOST_TEST(world.resumed_with[0].sequences.at(0) == 2u);  // of this epoch
  });

  world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
  repaired(2);
  world.locked([&] {
    BOOST_TEST(world.spawned[0] == 2);
    BOOST_TEST(world.spawned[1] == 2);  // the standby now
    BOOST_TEST((world.repaired[1].first_since == PlanEpoch(3)));
    BOOST_TEST((world.repaired[1].first_process == RankId(0)));
    BOOST_TEST(world.repaired[1].ports[0] != world.ports[0]);
    BOOST_TEST_REQUIRE(world.resumed_with.size() == 1u);
    BOOST_TEST(world.resumed_with[0].stage == 1);
  });
}

BOOST_AUTO_TEST_CASE(watches_again_after_a_link_has_broken) {
  for (size_t round = 1; round <= 2; ++round) {
    const auto broken = world.locked([&] { return std::exchange(world.watches[0], nullptr); });
    BOOST_TEST_REQUIRE((broken != nullptr));
    broken(kLinkBroke);
    repaired(round);
    world.wait([&] { return world.watches[0] != nullptr; });
  }
  world.locked([&] {
    BOOST_TEST((world.fences[0] == PlanEpoch(3)));
    BOOST_TEST((world.fences[1] == PlanEpoch(3)));
    BOOST_TEST(!world.fences.contains(2));
    BOOST_TEST(world.resumed_with.size() == 2u);
  });
}

BOOST_AUTO_TEST_CASE(who_has_failed_is_killed_and_replaced) {
  const auto failed = world.locked([&] { return world.watches[0]; });
  failed(Error{ErrorCode::internal, "bad frame"});
  repaired(1);
  world.locked([&] {
    BOOST_TEST(world.spawned[0] == 2);
    BOOST_TEST((world.repaired[0].first_since == PlanEpoch(2)));
  });
}

BOOST_AUTO_TEST_CASE(who_hangs_is_killed_and_replaced) {
  size_t times = 0;
  for (const bool mute : {false, true}) {
    const TimePoint began = steady_clock().now();
    world.locked([&] { (mute ? world.mute : world.stuck).insert(0); });
    repaired(++times);
    BOOST_TEST((steady_clock().now() - began < std::chrono::milliseconds(1200)));
    world.wait([&] { return world.notices.size() >= 2; });
    const auto notices = world.locked([&] { return std::exchange(world.notices, {}); });
    BOOST_TEST_REQUIRE(notices.size() == 2u);
    const char* const how = mute ? "it has not answered" : "its computing thread has done nothing";
    BOOST_TEST(notices[0].find(fmt::format("stage 'front': it hangs: {} for 0.", how)) == 0u,
               notices[0]);
    BOOST_TEST(notices[1].find("lane 0 serves again after ") == 0u, notices[1]);
  }
  world.locked([&] { BOOST_TEST(world.spawned[0] == 3); });
}

BOOST_AUTO_TEST_CASE(what_an_earlier_process_of_a_number_answers_is_void) {
  world.locked([&] { world.hold_hellos = true; });
  world.on_exit(RankId(0), "killed");
  world.wait([&] { return world.held_hellos.contains(0); });
  const auto late = world.locked([&] {
    world.hold_hellos = false;
    return world.held_hellos[0];
  });
  world.on_exit(RankId(0), "killed again");
  repaired(1);
  late(Error{ErrorCode::internal, "too late"});
  late(Error{ErrorCode::disconnected, "too late"});
  world.on_exit(RankId(1), "killed");
  repaired(2);
  world.locked([&] { BOOST_TEST(world.spawned[0] == 3); });
}

BOOST_AUTO_TEST_CASE(too_many_ends_fail_the_deployment_and_say_so) {
  for (size_t i = 1; i <= 5; ++i) {
    world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
    repaired(i);
  }
  world.on_exit(RankId(0), "killed by SIGKILL (Killed)");
  world.wait([&] { return world.stopped; });
  world.locked([&] {
    BOOST_TEST_REQUIRE(world.failure.has_value());
    BOOST_TEST(world.failure->message ==
               "stage 'front' died: killed by SIGKILL (Killed); that is the 6th end of a rank "
               "within 60 s (failover.restarts: 5)");
  });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
