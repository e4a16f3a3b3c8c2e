// A store of one member on the loopback, in a folder of its own, for as long as the object lives.
// The tests that use it are skipped where etcd is not installed.
#pragma once

#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "actors/store/etcd_client.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"

namespace chainpump::fakes {

class EtcdServer {
 public:
  static constexpr const char* kProgram = "/usr/bin/etcd";
  static boost::test_tools::assertion_result is_there(boost::unit_test::test_unit_id) {
    boost::test_tools::assertion_result there(std::filesystem::exists(kProgram));
    if (!there) there.message() << kProgram << " is not there (Debian's etcd-server)";
    return there;
  }

  EtcdServer() {
    const std::string client = fmt::format("http://{}", address_);
    const std::string peer = fmt::format("http://127.0.0.1:{}", free_port());
    const std::string folder = (folder_.path() / "data").string();
    const std::string cluster = "default=" + peer;
    const char* arguments[] = {kProgram,        "--data-dir",
                               folder.c_str(),  "--listen-client-urls",
                               client.c_str(),  "--advertise-client-urls",
                               client.c_str(),  "--listen-peer-urls",
                               peer.c_str(),    "--initial-advertise-peer-urls",
                               peer.c_str(),    "--initial-cluster",
                               cluster.c_str(), "--unsafe-no-fsync",
                               "--log-level",   "error",
                               nullptr};
    const std::string log = (folder_.path() / "log").string();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::freopen(log.c_str(), "w", stderr) == nullptr) ::_exit(1);
      ::execv(kProgram, const_cast<char* const*>(arguments));
      ::_exit(1);
    }
    const auto asks = client_of();
    const TimePoint deadline = steady_clock().now() + std::chrono::seconds(30);
    while (!asks->get("/x", steady_clock().now() + std::chrono::seconds(1)).ok()) {
      BOOST_TEST_REQUIRE((steady_clock().now() < deadline), "etcd does not start");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  ~EtcdServer() {
    ::kill(pid_, SIGCONT);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  void stop() { ::kill(pid_, SIGSTOP); }
  void go_on() { ::kill(pid_, SIGCONT); }

  actors::HttpServers servers() const { return {.addresses = {address_}}; }
  std::unique_ptr<actors::EtcdClient> client_of() const {
    auto client = actors::EtcdClient::create(servers());
    BOOST_TEST_REQUIRE(client.ok(), why(client));
    return *std::move(client);
  }

  static int free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    BOOST_TEST_REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size);
    ::close(fd);
    return ntohs(at.sin_port);
  }

 private:
  const std::string address_ = fmt::format("127.0.0.1:{}", free_port());
  TemporaryFolder folder_;
  pid_t pid_ = -1;
};

}  // namespace chainpump::fakes
