// Children: how they end, what they inherit, and that none outlives its parent.
#include "actors/os/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <future>

#include "actors/os/signals.h"

using namespace chainpump;
using namespace chainpump::os;
using namespace std::chrono_literals;

namespace {
SpawnOptions shell(const std::string& script) {
  SpawnOptions options;
  options.program = "/bin/sh";
  options.argv = {"sh", "-c", script};
  return options;
}
}  // namespace

BOOST_AUTO_TEST_CASE(exit_codes_and_signals) {
  auto three = spawn(shell("exit 3"));
  BOOST_REQUIRE(three.ok());
  BOOST_TEST(to_string(*three->wait(5s)) == "exit status 3");
  BOOST_TEST((three->kill(SIGTERM).error().code == ErrorCode::not_found));
  auto sleeper = spawn(shell("exec sleep 60"));
  BOOST_TEST((sleeper->wait(1ms).error().code == ErrorCode::deadline_exceeded));
  BOOST_TEST(sleeper->kill(SIGTERM).ok());
  BOOST_TEST(to_string(*sleeper->wait(5s)) == "killed by SIGTERM (Terminated)");
}

BOOST_AUTO_TEST_CASE(exec_failures_are_typed) {
  SpawnOptions options = shell("");
  options.program = "/proc/self/no-such-program";  // nobody can make it
  BOOST_TEST((spawn(options).error().code == ErrorCode::not_found));
  options.program = "/etc/passwd";
  BOOST_TEST((spawn(options).error().code == ErrorCode::invalid_argument));
}

BOOST_AUTO_TEST_CASE(impossible_descriptors_are_refused) {
  for (const std::vector<std::pair<int, int>>& descriptors :
       {std::vector<std::pair<int, int>>{{0, -1}}, {{0, 256}}, {{0, 7}, {1, 7}}}) {
    SpawnOptions options = shell("exit 0");
    options.descriptors = descriptors;
    BOOST_TEST((spawn(options).error().code == ErrorCode::invalid_argument));
  }
  SpawnOptions closed = shell("exit 0");
  closed.descriptors = {{-1, 7}};
  BOOST_TEST(!spawn(closed).ok());
  SpawnOptions nothing = shell("exit 0");
  nothing.argv.clear();
  BOOST_TEST((spawn(nothing).error().code == ErrorCode::invalid_argument));
}

BOOST_AUTO_TEST_CASE(only_the_given_descriptors_arrive) {
  auto pair = make_socketpair();
  const int leaked = open("/dev/null", O_RDONLY);  // not close-on-exec
  SpawnOptions options = shell("test \"$MARK\" = on && echo $(ls /proc/self/fd) >&7");
  options.descriptors = {{pair->second.get(), 7}};
  options.environment = {{"MARK", "on"}};
  auto child = spawn(options);
  BOOST_REQUIRE(child.ok());
  BOOST_TEST(child->wait(5s)->success());
  char text[64] = {};
  BOOST_TEST(read(pair->first.get(), text, sizeof(text) - 1) > 0);
  BOOST_TEST(std::string(text) == "0 1 2 3 7\n");  // 3 is ls reading the folder
  close(leaked);
}

BOOST_AUTO_TEST_CASE(a_child_dies_with_a_killed_parent) {
  // The parent is a fork of this test; its child holds the write end of a pipe until it ends.
  int pipe_fds[2];
  BOOST_REQUIRE_EQUAL(pipe2(pipe_fds, O_CLOEXEC), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    SpawnOptions options = shell("echo up >&5; exec sleep 60");
    options.descriptors = {{pipe_fds[1], 5}};
    auto child = spawn(options);
    close(pipe_fds[1]);
    pause();
    _exit(0);
  }
  close(pipe_fds[1]);
  char text[8];
  BOOST_TEST(read(pipe_fds[0], text, sizeof(text)) == 3);
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  pollfd ended{pipe_fds[0], POLLIN, 0};
  BOOST_TEST(poll(&ended, 1, 2000) == 1);
  BOOST_TEST(read(pipe_fds[0], text, sizeof(text)) == 0);
  close(pipe_fds[0]);
}

BOOST_AUTO_TEST_CASE(the_owner_leaves_no_zombie) {
  pid_t pid;
  {
    auto child = spawn(shell("exec sleep 60"));
    pid = child->pid();
  }
  BOOST_TEST(waitpid(pid, nullptr, WNOHANG) == -1);
  BOOST_TEST(kill(pid, 0) == -1);
}

BOOST_AUTO_TEST_CASE(the_watcher_tells_within_milliseconds) {
  std::promise<pid_t> ended;
  auto watcher = ProcessWatcher::create([&](pid_t pid) { ended.set_value(pid); });
  auto child = spawn(shell("exec sleep 60"));
  BOOST_REQUIRE((*watcher)->watch(*child).ok());
  const TimePoint killed = steady_clock().now();
  BOOST_REQUIRE(child->kill(SIGKILL).ok());
  auto future = ended.get_future();
  BOOST_REQUIRE(future.wait_for(2s) == std::future_status::ready);
  BOOST_TEST_MESSAGE("told after " << to_ms(steady_clock().now() - killed) << " ms");
  BOOST_TEST(future.get() == child->pid());
  BOOST_TEST(child->wait(0s)->code == SIGKILL);
}

BOOST_AUTO_TEST_CASE(signals_arrive_as_calls_while_listened_for) {
  sigset_t before, during, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  std::promise<int> first, second;
  {
    std::promise<int>* next = &first;
    auto listening = TerminationSignals::create([&](int signal) { next->set_value(signal); });
    BOOST_REQUIRE(listening.ok());
    pthread_sigmask(SIG_SETMASK, nullptr, &during);
    BOOST_TEST(sigismember(&during, SIGINT) == 1);
    BOOST_TEST(sigismember(&during, SIGTERM) == 1);
    BOOST_REQUIRE_EQUAL(kill(getpid(), SIGTERM), 0);
    auto told = first.get_future();
    BOOST_REQUIRE(told.wait_for(5s) == std::future_status::ready);
    BOOST_TEST(told.get() == SIGTERM);
    next = &second;
    BOOST_REQUIRE_EQUAL(kill(getpid(), SIGINT), 0);
    auto again = second.get_future();
    BOOST_REQUIRE(again.wait_for(5s) == std::future_status::ready);
    BOOST_TEST(again.get() == SIGINT);
    // A child does not inherit the blocked mask: it can be ended politely.
    auto child = spawn(shell("exec sleep 60"));
    BOOST_REQUIRE(child->kill(SIGTERM).ok());
    BOOST_TEST(to_string(*child->wait(5s)) == "killed by SIGTERM (Terminated)");
  }
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  BOOST_TEST(sigismember(&after, SIGINT) == sigismember(&before, SIGINT));
}
