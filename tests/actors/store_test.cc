// What a coordinator writes down, read again: by the next one, after a kill in the middle of it,
// from a damaged file, and where the disk is full.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <fstream>

#include "actors/store/state_store.h"
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
          .processes = {{false, true}, {true, false}, {false, false}},
          .ends = {{Duration(5)}, {Duration(7'000'000'000)}}};
}

struct Folder {
  TemporaryFolder folder;
  const std::string path = (folder.path() / "state.db").string();
  std::unique_ptr<StateStore> open() {
    auto store = open_sqlite_store(path);
    BOOST_TEST_REQUIRE(store.ok(), why(store));
    return *std::move(store);
  }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(store, Folder)

BOOST_AUTO_TEST_CASE(the_next_one_reads_what_was_written_last) {
  {
    const auto first = open();
    const auto nothing = first->read();
    BOOST_TEST_REQUIRE(nothing.ok(), why(nothing));
    BOOST_TEST(!nothing->has_value());
    BOOST_TEST(first->write(sample(3)).ok());
    BOOST_TEST(first->write(sample(4)).ok());
  }
  struct stat found {};
  BOOST_TEST(::stat(path.c_str(), &found) == 0);
  BOOST_TEST((found.st_mode & 0777) == 0600u);
  const auto next = open();
  const auto read = next->read();
  BOOST_TEST_REQUIRE(read.ok(), why(read));
  BOOST_TEST((*read == sample(4)));
}

BOOST_AUTO_TEST_CASE(one_at_a_time) {
  const auto first = open();
  const auto second = open_sqlite_store(path);
  BOOST_TEST_REQUIRE(!second.ok());
  BOOST_TEST((second.error().code == ErrorCode::overloaded), second.error().message);
}

// Whenever it is killed, the next one finds a state that was written, and none older than the last
// that was known to be.
BOOST_AUTO_TEST_CASE(a_kill_in_the_middle_leaves_what_was_written) {
  for (int trial = 0; trial < 20; ++trial) {
    int news[2];
    BOOST_TEST_REQUIRE(::pipe(news) == 0);
    const pid_t writer = ::fork();
    if (writer == 0) {
      auto store = open_sqlite_store(path);
      for (uint32_t epoch = 1; store.ok() && (*store)->write(sample(epoch)).ok(); ++epoch)
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
    const auto read = open()->read();
    BOOST_TEST_REQUIRE(read.ok(), why(read));
    BOOST_TEST_REQUIRE(read->has_value());
    const uint32_t found = (*read)->epoch.value;
    BOOST_TEST((found == epoch || found == epoch + 1));
    BOOST_TEST((**read == sample(found)));
  }
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
