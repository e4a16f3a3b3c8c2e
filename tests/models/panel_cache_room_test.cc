// The cache and the disk: its limit, what goes first, and disks that are full or cannot be written.
#include "models/panel_cache/room.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <boost/test/unit_test.hpp>

#include "tests/fakes/own_mounts.h"
#include "tests/models/panel_cache_fixture.h"

namespace chainpump {
namespace {

BOOST_FIXTURE_TEST_SUITE(panel_cache_room, CacheFixture)

BOOST_AUTO_TEST_CASE(the_least_recently_used_model_goes_first) {
  for (const uint64_t fingerprint : {1, 2, 3}) {
    options.fingerprint = fingerprint;
    BOOST_TEST(Start(options).all(false));
  }
  options.fingerprint = 1;
  BOOST_TEST(Start(options).all(true));  // used last
  int64_t used = 0;
  for (const auto& entry : std::filesystem::directory_iterator(options.cache.folder)) {
    struct stat st {};
    BOOST_TEST_REQUIRE(stat(entry.path().c_str(), &st) == 0);
    used += st.st_blocks * 512;
  }
  options.cache.limit_bytes = used;
  options.fingerprint = 4;
  BOOST_TEST(Start(options).all(false));
  options.sections = {"layer-0"};
  const auto kept = [&](uint64_t fingerprint) {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(options.cache.folder))
      count += entry.path().filename().string().starts_with(fmt::format("{:016x}-", fingerprint));
    return count;
  };
  BOOST_TEST(kept(1) == 2u);
  BOOST_TEST(kept(2) == 0u);
  BOOST_TEST(kept(3) == 2u);
  BOOST_TEST(kept(4) == 2u);
}

BOOST_AUTO_TEST_CASE(a_model_never_displaces_itself) {
  options.sections = {"layer-0"};
  const Start first(options);
  BOOST_TEST(num_files() == 1u);
  options.cache.limit_bytes =
      static_cast<int64_t>(std::filesystem::file_size(file_of("layer-0"))) + 4096;
  options.sections = {"layer-0", "head"};
  const Start second(options);
  BOOST_TEST((second.hits == std::vector<bool>{true, false}));
  BOOST_TEST((second.panels == expected));
  BOOST_TEST(second.note.find("no room") != std::string::npos, second.note);
  BOOST_TEST(num_files() == 1u);
}

BOOST_AUTO_TEST_CASE(old_leftovers_go_and_young_ones_stay) {
  const Start first(options);
  const std::filesystem::path old = options.cache.folder / ".new-0000000000000001";
  const std::filesystem::path young = options.cache.folder / ".new-0000000000000002";
  const std::filesystem::path foreign = options.cache.folder / "notes.txt";
  for (const auto& path : {old, young, foreign}) write_file(path, "x");
  const timespec long_ago[2] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
  for (const auto& path : {old, foreign})
    BOOST_TEST_REQUIRE(utimensat(AT_FDCWD, path.c_str(), long_ago, 0) == 0);
  options.fingerprint = 9;
  const Start second(options);
  BOOST_TEST(!std::filesystem::exists(old));
  BOOST_TEST(std::filesystem::exists(young));
  BOOST_TEST(std::filesystem::exists(foreign));
}

BOOST_AUTO_TEST_CASE(a_write_that_fails_leaves_nothing) {
  // A limit on file sizes fails in mid-write, as a full disk or a quota does.
  rlimit before{};
  BOOST_TEST_REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit small = {.rlim_cur = 6000, .rlim_max = before.rlim_max};
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  BOOST_TEST_REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Start start(options);
  BOOST_TEST_REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  signal(SIGXFSZ, handler);
  BOOST_TEST(start.all(false));
  BOOST_TEST((start.panels == expected));
  BOOST_TEST(start.note.find("cannot be written") != std::string::npos, start.note);
  BOOST_TEST(num_files() == 0u);
  BOOST_TEST(Start(options).note == "");
}

BOOST_AUTO_TEST_CASE(a_full_disk_is_done_without) {
  const std::string wrong = in_own_mounts([&]() -> std::string {
    const std::filesystem::path disk = folder.path() / "disk";
    std::filesystem::create_directory(disk);
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=64k") != 0) return "mount failed";
    options.cache.folder = disk / "panels";
    const Start start(options);
    if (!start.all(false) || start.panels != expected) return "wrong panels";
    if (start.note.find("no room") == std::string::npos) return "note: " + start.note;
    return num_files() == 0 ? "" : "something was left";
  });
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_be_written_still_serves) {
  const std::string wrong = in_own_mounts([&]() -> std::string {
    const std::filesystem::path disk = folder.path() / "disk";
    std::filesystem::create_directory(disk);
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=64m") != 0) return "mount failed";
    options.cache.folder = disk / "panels";
    options.sections = {"layer-0"};
    const Start first(options);
    if (mount("none", disk.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0)
      return "remount failed";
    options.sections = {"layer-0", "head"};
    const Start second(options);
    if (second.hits != std::vector<bool>{true, false} || second.panels != expected)
      return "wrong panels";
    if (second.note.find("cannot be written") == std::string::npos) return "note: " + second.note;
    options.cache.folder = disk / "none" / "panels";
    const Start third(options);
    if (!third.all(false) || third.panels != expected) return "wrong panels without a folder";
    return third.note.find("cannot be opened") == std::string::npos ? "note: " + third.note : "";
  });
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump
