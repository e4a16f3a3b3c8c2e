// Shared memory links and /dev/shm: they leave nothing there, not for a moment, need no more room
// there than UCX's own look at it, and say so where there is none.
#include "transport/ucx/unnamed_memory.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <string>

#include "base/unique_fd.h"
#include "tests/fakes/own_mounts.h"
#include "tests/transport/conformance.h"
#include "transport/ucx/ucx_context.h"

namespace chainpump::transport {
namespace {

constexpr size_t kPageBytes = 4096;

/// An empty /dev/shm of two pages, with so many of them in use. What failed, or nothing.
std::string small_memory_folder(size_t pages_used) {
  if (mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=8192") != 0) return "mount";
  if (pages_used == 0) return "";
  const UniqueFd fd(open("/dev/shm/fill", O_CREAT | O_WRONLY, 0600));
  const std::string text(pages_used * kPageBytes, 'x');
  return write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? ""
                                                                                        : "fill";
}

BOOST_AUTO_TEST_SUITE(unnamed_memory)

BOOST_AUTO_TEST_CASE(links_work_and_no_file_ever_appears) {
  const std::string wrong = in_own_mounts([]() -> std::string {
    if (std::string failed = small_memory_folder(1); !failed.empty()) return failed;
    const UniqueFd watch(inotify_init1(IN_NONBLOCK));
    if (inotify_add_watch(watch.get(), "/dev/shm", IN_CREATE | IN_DELETE) < 0) return "inotify";
    Ends ends = open_ends(LinkKind::ucx_shared_memory, small_options());
    const std::string transport = ends.send->stats().transport;
    if (transport.find("posix") == std::string::npos) return "the link uses " + transport;
    for (const size_t bytes : {10u, 8192u}) {
      if (!send_pattern(ends, bytes, 5, bytes).ok()) return "send";
      const auto frame = receive(ends);
      if (!frame || !is_pattern(*frame, bytes, 5, bytes)) return "receive";
    }
    char event[4096];
    if (read(watch.get(), event, sizeof event) > 0) return "a file appeared in /dev/shm";
    return "";
  });
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_CASE(a_full_folder_is_named) {
  const std::string wrong = in_own_mounts([]() -> std::string {
    if (std::string failed = small_memory_folder(2); !failed.empty()) return failed;
    const auto context = UcxContext::create({.kind = TransportKind::shared_memory});
    if (context.ok()) return "it started";
    if (context.error().code != ErrorCode::no_room) return "another code";
    const std::string& message = context.error().message;
    return message.starts_with("/dev/shm is full") ? "" : message;
  });
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_CASE(a_missing_folder_is_named) {
  const std::string wrong = in_own_mounts([]() -> std::string {
    if (mount("tmpfs", "/dev", "tmpfs", 0, "size=8192") != 0) return "mount";
    const Status status = use_unnamed_memory();
    if (status.ok()) return "it started";
    return status.error().message == "shared memory links need /dev/shm: No such file or directory"
               ? ""
               : status.error().message;
  });
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_CASE(other_names_are_files_as_ever) {
  const std::string name = "/chainpump_unnamed_memory_test_" + std::to_string(getpid());
  const UniqueFd fd(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600));
  BOOST_TEST_REQUIRE(fd.valid());
  BOOST_TEST(std::filesystem::exists("/dev/shm" + name));
  BOOST_TEST(shm_unlink(name.c_str()) == 0);
  BOOST_TEST(!std::filesystem::exists("/dev/shm" + name));
  BOOST_TEST(shm_unlink(name.c_str()) == -1);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport
