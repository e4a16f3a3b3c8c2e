// What a coordinator tells those who watch it, over its socket: what it is now, and whatever it is
// after that.
#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>

#include "tests/fakes/temporary_folder.h"
#include "transport/rpc/coordinator_client.h"
#include "transport/rpc/coordinator_server.h"
#include "transport/rpc/unix_socket.h"

using namespace chainpump;
using namespace chainpump::transport::rpc;
using namespace std::chrono_literals;

namespace {

struct IdleCoordinator final : CoordinatorHandler {
  void on_stats(Reply<std::vector<RankStats>> reply) override { reply(std::vector<RankStats>(2)); }
  void on_stop() override { server->set_stopped(); }
  void on_beat(Reply<Ok> reply) override { reply(Ok{}); }
  void on_move(uint32_t rank, OnMoveProgress progress, Reply<Ok> reply) override {
    progress({MoveStep::copying, 3, 7});
    if (rank == 1) return reply(make_error(ErrorCode::not_found, "there is no rank 1"));
    moving = std::move(reply);
  }
  void on_change(ServiceSpec spec, OnMoveProgress progress, Reply<Ok> reply) override {
    progress({MoveStep::copying, 3, 7});
    if (spec.number != 2)
      return reply(make_error(ErrorCode::overloaded, "that was change {}", spec.number));
    moving = std::move(reply);
  }
  void on_trace(uint32_t, uint64_t, Reply<StepEvents> reply) override { reply(StepEvents{}); }
  Reply<Ok> moving;
  CoordinatorServer* server = nullptr;
};

struct Fixture {
  Fixture() {
    coordinator.server = &server;
    Result<UniqueFd> listener = listen_unix(path);
    BOOST_REQUIRE(listener.ok());
    served = std::async(std::launch::async,
                        [this, fd = listener->release()] { return server.run(UniqueFd(fd)); });
  }
  ~Fixture() {
    server.set_stopped();
    BOOST_CHECK(served.wait_for(10s) == std::future_status::ready);
  }

  TemporaryFolder folder;
  const std::string path = folder.path() / "c.sock";
  IdleCoordinator coordinator;
  CoordinatorServer server{coordinator};
  std::future<Status> served;
};

/// Somebody who watches, and all that he was told.
struct Watcher {
  explicit Watcher(const Fixture& f) {
    Result<UniqueFd> socket = connect_unix(f.path);
    BOOST_REQUIRE(socket.ok());
    client = std::make_unique<CoordinatorClient>(thread, std::move(*socket), [](const Error&) {});
    client->hello(5s, [](const Result<HelloReply>& reply) { BOOST_TEST(reply.ok()); });
    DeploymentCallbacks callbacks;
    callbacks.on_serving = [this](const std::string& numerics_id, std::vector<LaneAddress> lanes) {
      const std::lock_guard lock(mutex);
      told.push_back(numerics_id);
      for (const LaneAddress& lane : lanes)
        told.back() += fmt::format(" {}@{}", lane.socket, lane.epoch);
      changed.notify_all();
    };
    callbacks.on_lanes = [this](const std::vector<LaneNews>& lanes) {
      const std::lock_guard lock(mutex);
      told.push_back("lanes");
      for (const LaneNews& lane : lanes)
        told.back() +=
            lane.serves ? fmt::format(" serves@{}", lane.epoch)
                        : fmt::format(" away@{} {} ({})", lane.epoch, lane.away_for_ns, lane.why);
      changed.notify_all();
    };
    callbacks.on_ended = [this](const Error& why) {
      const std::lock_guard lock(mutex);
      told.push_back(why.message);
      changed.notify_all();
    };
    client->watch(std::move(callbacks), [](const Result<Ok>&) {});
  }
  ~Watcher() { client.reset(); }
  /// The next that it is told.
  std::string next() {
    std::unique_lock lock(mutex);
    BOOST_REQUIRE(changed.wait_for(lock, 10s, [&] { return !told.empty(); }));
    std::string first = std::move(told.front());
    told.pop_front();
    return first;
  }

  RpcThread thread = *RpcThread::create();
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> told;
  std::unique_ptr<CoordinatorClient> client;
};

}  // namespace

BOOST_AUTO_TEST_CASE(who_watches_is_told_again_when_a_lane_moves) {
  Fixture f;
  Watcher early(f);
  f.server.set_serving("n", {{"/a", 1}, {"/b", 1}});
  BOOST_TEST(early.next() == "n /a@1 /b@1");
  f.server.set_serving("n", {{"/a", 1}, {"/c", 4}});
  BOOST_TEST(early.next() == "n /a@1 /c@4");
  Watcher late(f);  // what is over is nobody's news
  BOOST_TEST(late.next() == "n /a@1 /c@4");
  f.server.set_serving("n", {{"/d", 7}, {"/c", 4}});
  BOOST_TEST(early.next() == "n /d@7 /c@4");
  BOOST_TEST(late.next() == "n /d@7 /c@4");
  f.server.set_failed(make_error(ErrorCode::internal, "no stage is left"));
  BOOST_TEST(early.next() == "no stage is left");
  BOOST_TEST(late.next() == "no stage is left");
}

BOOST_AUTO_TEST_CASE(who_watches_is_told_which_lanes_are_away) {
  Fixture f;
  Watcher early(f);
  f.server.set_lanes({{.epoch = 1, .serves = true}, {.epoch = 1, .serves = true}});
  BOOST_TEST(early.next() == "lanes serves@1 serves@1");
  f.server.set_lanes({{.epoch = 1, .serves = true},
                      {.epoch = 2, .serves = false, .why = "stage 'x' died", .away_for_ns = 7}});
  BOOST_TEST(early.next() == "lanes serves@1 away@2 7 (stage 'x' died)");
  Watcher late(f);
  BOOST_TEST(late.next() == "lanes serves@1 away@2 7 (stage 'x' died)");
}
BOOST_AUTO_TEST_CASE(who_asks_for_a_move_is_told_how_far_it_is) {
  Fixture f;
  Watcher asker(f);
  std::promise<MoveProgress> far;
  std::promise<Result<Ok>> moved;
  asker.client->move(
      0, 5s, [&](const MoveProgress& progress) { far.set_value(progress); },
      [&](Result<Ok> done) { moved.set_value(std::move(done)); });
  const MoveProgress progress = far.get_future().get();
  BOOST_TEST((progress.step == MoveStep::copying && progress.bytes_done == 3));
  BOOST_TEST(progress.bytes_total == 7);
  f.coordinator.moving(Ok{});
  BOOST_TEST(moved.get_future().get().ok());
  std::promise<Result<Ok>> refused;
  asker.client->move(
      1, 5s, [](const MoveProgress&) {},
      [&](Result<Ok> done) { refused.set_value(std::move(done)); });
  const Result<Ok> why = refused.get_future().get();
  BOOST_TEST((why.error().code == ErrorCode::not_found));
  BOOST_TEST(why.error().message == "there is no rank 1");
}
BOOST_AUTO_TEST_CASE(a_change_is_asked_for_with_a_whole_plan) {
  Fixture f;
  Watcher asker(f);
  ServiceSpec spec{.graph = "stages: 2", .graph_text = "stages: 2 # of mine", .number = 7};
  const auto change = [&](std::promise<MoveProgress>& far, std::promise<Result<Ok>>& done) {
    asker.client->change(
        spec, 5s, [&](const MoveProgress& progress) { far.set_value(progress); },
        [&](Result<Ok> result) { done.set_value(std::move(result)); });
  };
  std::promise<MoveProgress> none, far;
  std::promise<Result<Ok>> refused, changed;
  change(none, refused);
  BOOST_TEST(refused.get_future().get().error().message == "that was change 7");
  spec.number = 2;
  change(far, changed);
  BOOST_TEST((far.get_future().get().step == MoveStep::copying));
  f.coordinator.moving(Ok{});
  BOOST_TEST(changed.get_future().get().ok());
}
