// What a test does to the machine's file systems, where nobody else sees it: a full disk, a full
// /dev/shm. Root or not, where the system gives its users namespaces. Call it before the program
// has threads that the body needs: the child of a fork has none of them.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <functional>
#include <string>

namespace chainpump {

/// Runs `body` in a child with mounts of its own. Returns what it says is wrong; empty: nothing.
inline std::string in_own_mounts(const std::function<std::string()>& body) {
  int ends[2];
  BOOST_TEST_REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const int spaces = CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER);
    std::string wrong = "unshare: the system allows no mounts of one's own";
    if (unshare(spaces) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0)
      wrong = body();
    if (write(ends[1], wrong.data(), wrong.size()) < 0) _exit(1);
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  BOOST_TEST_REQUIRE(waitpid(child, &status, 0) == child);
  BOOST_TEST(status == 0);
  return said;
}

}  // namespace chainpump
