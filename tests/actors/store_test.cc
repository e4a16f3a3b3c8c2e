// What a coordinator writes down, read again: by the next one, after a kill in the middle of it,
// from damaged state, and where the disk is full. Both stores.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "actors/store/etcd_store.h"
#include "actors/store/record_json.h"
#include "actors/store/state_store.h"
#include "tests/fakes/etcd_server.h"
#include "tests/fakes/own_mounts.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {
namespace {

using fakes::why;
using graph::DeploymentRecord;

DeploymentRecord sample(uint32_t epoch) {
  return {.has_served = true,
          .epoch = PlanEpoch(epoch),
          .numerics_id = "one way",
          .lanes = {{PlanEpoch(epoch), PlanEpoch(1), false, true},
                    {PlanEpoch(2), PlanEpoch(2), true, false}},
          .processes = {{RankId(0), false, false, true, true},
                        {RankId(0), true, false, false, false},
                        {RankId(1), false, true, false, false}},
          .ends = {{Duration(5)}, {Duration(7'000'000'000)}}};
}

/// Ends come back as they were, give or take how long reading two clocks takes.
bool same(const DeploymentRecord& a, const DeploymentRecord& b) {
  DeploymentRecord with_ends = a;
  with_ends.ends = b.ends;
  if (!(with_ends == b) || a.ends.size() != b.ends.size()) return false;
  for (size_t i = 0; i < a.ends.size(); ++i)
    if (std::abs((a.ends[i] - b.ends[i]).count()) > 50'000'000) return false;
  return true;
}

struct Folder {
  TemporaryFolder folder;
  const std::string path = (folder.path() / "state.db").string();
  std::unique_ptr<StateStore> open() {
    auto store = open_sqlite_store(path);
    BOOST_TEST_REQUIRE(store.ok(), why(store));
    return *std::move(store);
  }
  /// Nothing: the one before has it still.
  std::unique_ptr<StateStore> open_another() {
    auto store = open_sqlite_store(path);
    if (store.ok()) return *std::move(store);
    BOOST_TEST((store.error().code == ErrorCode::overloaded), store.error().message);
    return nullptr;
  }
};

/// Whoever opens leads from then on.
struct Etcd {
  fakes::EtcdServer server;
  const EtcdKeys keys{"/test/demo"};
  TimePoint until = steady_clock().now() + std::chrono::minutes(10);

  static TimePoint soon() { return steady_clock().now() + std::chrono::seconds(10); }
  std::unique_ptr<StateStore> open() {
    const auto client = server.client_of();
    BOOST_TEST(client->transact({{}, {{keys.leader(), {}}}, {}}, soon()).ok());
    const auto elected = client->transact(
        {{{keys.leader(), EtcdCompare::What::create_revision, 0}}, {{keys.leader(), "x"}}, {}},
        soon());
    BOOST_TEST_REQUIRE(elected.ok(), why(elected));
    BOOST_TEST_REQUIRE(elected->succeeded);
    return make_etcd_store(server.client_of(), {keys, elected->revision, [this] { return until; }});
  }
  std::unique_ptr<StateStore> open_another() { return open(); }
};

using Homes = boost::mpl::list<Folder, Etcd>;

}  // namespace

BOOST_AUTO_TEST_SUITE(stores, *boost::unit_test::precondition(fakes::EtcdServer::is_there))

BOOST_AUTO_TEST_CASE_TEMPLATE(the_next_one_reads_what_was_written_last, Home, Homes) {
  Home home;
  {
    const auto first = home.open();
    const auto nothing = first->read();
    BOOST_TEST_REQUIRE(nothing.ok(), why(nothing));
    BOOST_TEST(!nothing->has_value());
    BOOST_TEST(first->write(sample(3)).ok());
    BOOST_TEST(first->write(sample(4)).ok());
  }
  {
    const auto next = home.open();
    const auto read = next->read();
    BOOST_TEST_REQUIRE(read.ok(), why(read));
    BOOST_TEST_REQUIRE(read->has_value());
    BOOST_TEST(same(**read, sample(4)));
    BOOST_TEST(next->write(sample(5)).ok());
    BOOST_TEST(next->clear().ok());
  }
  const auto read = home.open()->read();
  BOOST_TEST_REQUIRE(read.ok(), why(read));
  BOOST_TEST(!read->has_value());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(never_do_two_write, Home, Homes) {
  Home home;
  const auto first = home.open();
  BOOST_TEST(first->read().ok());
  BOOST_TEST(first->write(sample(3)).ok());
  const auto second = home.open_another();
  const Status written = first->write(sample(4));
  BOOST_TEST(written.ok() == (second == nullptr));
  if (second == nullptr) return;
  BOOST_TEST((written.error().code == ErrorCode::cancelled), why(written));
  BOOST_TEST((first->clear().error().code == ErrorCode::cancelled));
  const auto read = second->read();
  BOOST_TEST_REQUIRE(read.ok(), why(read));
  BOOST_TEST(same(**read, sample(3)));
  BOOST_TEST(second->write(sample(5)).ok());
}

// Whenever it is killed, the next one finds a state that was written, and none older than the last
// that was known to be.
BOOST_AUTO_TEST_CASE_TEMPLATE(a_kill_in_the_middle_leaves_what_was_written, Home, Homes) {
  Home home;
  for (int trial = 0; trial < 20; ++trial) {
    int news[2];
    BOOST_TEST_REQUIRE(::pipe(news) == 0);
    const pid_t writer = ::fork();
    if (writer == 0) {
      const auto store = home.open();
      (void)store->read();
      for (uint32_t epoch = 1; store->write(sample(epoch)).ok(); ++epoch)
        if (::write(news[1], &epoch, sizeof epoch) != sizeof epoch) break;
      ::_exit(1);
    }
    ::close(news[1]);
    uint32_t epoch = 0;
    for (int i = 0; i < 10 + trial; ++i)
      BOOST_TEST_REQUIRE(::read(news[0], &epoch, sizeof epoch) == ssize_t{sizeof epoch});
    ::kill(writer, SIGKILL);
    ::waitpid(writer, nullptr, 0);
    for (uint32_t later; ::read(news[0], &later, sizeof later) == ssize_t{sizeof later};)
      epoch = later;
    ::close(news[0]);
    const auto read = home.open()->read();
    BOOST_TEST_REQUIRE(read.ok(), why(read));
    BOOST_TEST_REQUIRE(read->has_value());
    const uint32_t found = (*read)->epoch.value;
    BOOST_TEST((found == epoch || found == epoch + 1));
    BOOST_TEST(same(**read, sample(found)));
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(etcd, Etcd, *boost::unit_test::precondition(fakes::EtcdServer::is_there))

BOOST_AUTO_TEST_CASE(whose_term_may_be_over_does_not_write) {
  const auto store = open();
  BOOST_TEST(store->read().ok());
  until = steady_clock().now();
  const Status written = store->write(sample(1));
  BOOST_TEST_REQUIRE(!written.ok());
  BOOST_TEST((written.error().code == ErrorCode::cancelled), why(written));
  BOOST_TEST((store->read().error().code == ErrorCode::cancelled));
}

// Nobody answers until then; and what was sent meanwhile changes nothing when it arrives.
BOOST_AUTO_TEST_CASE(what_is_carried_out_late_is_void) {
  const auto first = open();
  BOOST_TEST(first->read().ok());
  BOOST_TEST(first->write(sample(1)).ok());
  server.stop();
  until = steady_clock().now() + std::chrono::milliseconds(900);
  BOOST_TEST((first->write(sample(2)).error().code == ErrorCode::cancelled));
  until = until + std::chrono::minutes(1);
  server.go_on();
  const auto next = open();
  BOOST_TEST(next->read().ok());
  BOOST_TEST(next->write(sample(7)).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto read = open()->read();
  BOOST_TEST_REQUIRE(read.ok(), why(read));
  BOOST_TEST(same(**read, sample(7)));
}

BOOST_AUTO_TEST_CASE(a_server_that_is_away_is_passed_over) {
  HttpServers servers = server.servers();
  servers.addresses.insert(servers.addresses.begin(),
                           fmt::format("127.0.0.1:{}", fakes::EtcdServer::free_port()));
  auto client = EtcdClient::create(servers);
  BOOST_TEST_REQUIRE(client.ok());
  BOOST_TEST((*client)->get("/x", soon()).ok());
  servers.addresses.resize(1);
  client = EtcdClient::create(servers);
  BOOST_TEST_REQUIRE(client.ok());
  BOOST_TEST(((*client)->get("/x", soon()).error().code == ErrorCode::disconnected));
}

BOOST_AUTO_TEST_CASE(leases_end) {
  const auto client = server.client_of();
  const auto lease = client->grant(std::chrono::seconds(2), soon());
  BOOST_TEST_REQUIRE(lease.ok(), why(lease));
  BOOST_TEST((lease->ttl == std::chrono::seconds(2)));
  const auto ttl = client->renew(lease->id, soon());
  BOOST_TEST_REQUIRE(ttl.ok(), why(ttl));
  BOOST_TEST((*ttl == lease->ttl));
  BOOST_TEST(client->transact({{}, {{"/k/a", "x", lease->id}}, {}}, soon()).ok());
  BOOST_TEST(client->list("/k/", soon())->size() == 1u);
  BOOST_TEST(client->revoke(lease->id, soon()).ok());
  BOOST_TEST(client->list("/k/", soon())->empty());
  BOOST_TEST((*client->renew(lease->id, soon()) == Duration(0)));
  const auto put = client->transact({{}, {{"/k/a", "x", lease->id}}, {}}, soon());
  BOOST_TEST((put.error().code == ErrorCode::not_found), why(put));
}

BOOST_AUTO_TEST_CASE(damaged_records_are_refused) {
  const auto client = server.client_of();
  const std::string good = to_json_text(sample(3), 1, unix_minus_monotonic());
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string(R"({"format": 4})"),
        good.substr(0, good.size() - 1), good + "x"}) {
    BOOST_TEST(client->transact({{}, {{keys.record(), text}}, {}}, soon()).ok());
    const auto read = open()->read();
    BOOST_TEST_REQUIRE(!read.ok(), text);
    BOOST_TEST((read.error().code == ErrorCode::bad_file), why(read));
  }
  // Bytes anywhere: refused, or a record; never a crash.
  int num_refused = 0;
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x15);
    num_refused += !record_from_json(bytes, Duration(0), steady_clock().now()).ok();
  }
  BOOST_TEST(num_refused > 100);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(sqlite, Folder)

BOOST_AUTO_TEST_CASE(it_is_for_its_user_alone) {
  const auto store = open();
  struct stat found {};
  BOOST_TEST(::stat(path.c_str(), &found) == 0);
  BOOST_TEST((found.st_mode & 0777) == 0600u);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_is_refused) {
  open()->write(sample(3)).ok();
  std::string good;
  {
    std::ifstream file(path, std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(file), {});
  }
  BOOST_TEST_REQUIRE(good.size() > 4096u);
  const auto with = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    auto store = open_sqlite_store(path);
    if (!store.ok()) return store.error().code;
    const auto read = (*store)->read();
    if (!read.ok()) return read.error().code;
    BOOST_TEST((!read->has_value() || **read == sample(3)));
    return ErrorCode{};
  };
  BOOST_TEST((with(std::string(8192, 'x')) == ErrorCode::bad_file));
  BOOST_TEST((with("short") == ErrorCode::bad_file));
  BOOST_TEST((with(good.substr(0, 4096)) == ErrorCode::bad_file));
  std::string version = good;
  version[63] = 9;  // user_version, big-endian at 60
  BOOST_TEST((with(version) == ErrorCode::bad_file));
  // Bytes anywhere: refused, or harmless; never a crash. Values may differ, which check() sees.
  int num_refused = 0;
  for (size_t at = 0; at < good.size(); at += 97) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x5a);
    std::ofstream(path, std::ios::binary) << bytes;
    auto store = open_sqlite_store(path);
    const bool refused = !store.ok() || !(*store)->read().ok();
    if (refused) ++num_refused;
  }
  BOOST_TEST(num_refused > 5);
}

BOOST_AUTO_TEST_CASE(an_empty_file_is_new_and_a_missing_folder_is_said) {
  std::ofstream(path) << "";
  BOOST_TEST(open_sqlite_store(path).ok());
  std::filesystem::remove(path);
  BOOST_TEST((open_sqlite_store(folder.path() / "no/state.db").error().code == ErrorCode::no_room));
}

BOOST_AUTO_TEST_CASE(a_full_disk_is_said_and_changes_nothing) {
  const std::string wrong = in_own_mounts([&]() -> std::string {
    const std::string mount_point = folder.path().string();
    if (mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=128k") != 0) return "mount";
    auto store = open_sqlite_store(path);
    if (!store.ok()) return why(store);
    if (const Status done = (*store)->write(sample(3)); !done.ok()) return why(done);
    {
      std::ofstream filler(mount_point + "/filler");
      const std::string block(4096, 'x');
      while (filler << block << std::flush) {
      }
    }
    DeploymentRecord large = sample(4);
    large.processes.resize(20000);
    const Status refused = (*store)->write(large);
    if (refused.ok() || refused.error().code != ErrorCode::no_room) return why(refused);
    if (refused.error().message.find("state.db") == std::string::npos) return why(refused);
    const auto read = (*store)->read();
    if (!read.ok()) return why(read);
    if (!(*read == sample(3))) return "what was there has changed";
    std::filesystem::remove(mount_point + "/filler");
    return (*store)->write(sample(5)).ok() ? "" : "no more after that";
  });
  BOOST_TEST(wrong.empty(), wrong);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump::actors
