// A gateway's server over an engine that does what the test says, and sockets to it. For tests of
// gateway/rpc.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstring>
#include <functional>
#include <thread>

#include "gateway/rpc/client.h"
#include "gateway/rpc/server.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"
#include "tests/models/fake_tokenizer.h"

namespace chainpump::gateway::rpc {

using fakes::why;

inline constexpr Duration kPatience = std::chrono::seconds(20);  // sanitizers are slow

/// Until `condition`, looking often; false after kPatience.
inline bool wait_for(const std::function<bool()>& condition) {
  const TimePoint until = steady_clock().now() + kPatience;
  while (!condition()) {
    if (steady_clock().now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  return address;
}

inline UniqueFd listen_at(const std::string& path) {
  const sockaddr_un address = address_of(path);
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  BOOST_REQUIRE_EQUAL(
      ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  BOOST_REQUIRE_EQUAL(::listen(listener.get(), 64), 0);
  return listener;
}

class TestServer {
 public:
  explicit TestServer(ServerOptions options = {.uid = ::geteuid()}, CoreOptions core_options = {})
      : core_(engine, encoder(), info(), core_options, steady_clock()) {
    path_ = (folder_.path() / "socket").string();
    options.on_tick = [this] { return !stop_; };
    core_.set_ready("ready");
    server_ = std::make_unique<Server>(listen_at(path_), core_, std::move(options));
    thread_ = std::thread([this] { ended_ = server_->run(); });
  }
  ~TestServer() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    BOOST_TEST(ended_.ok(), why(ended_));
  }

  std::unique_ptr<Client> connect() {
    auto client = Client::connect(path_, kPatience);
    BOOST_REQUIRE_MESSAGE(client.ok(), why(client));
    return std::move(*client);
  }
  UniqueFd connect_raw() {
    const sockaddr_un address = address_of(path_);
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    BOOST_REQUIRE_EQUAL(
        ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return socket;
  }
  const std::string& path() const { return path_; }
  Core& core() { return core_; }

  fakes::FakeEngine engine;

 private:
  static PromptEncoder encoder() {
    const std::vector<std::string> pieces = {"a", "b", "ab", "c", "d", "e", "<|end|>"};
    return PromptEncoder(std::make_unique<models::FakeTokenizer>(pieces, std::vector<TokenId>{6}),
                         make_error(ErrorCode::not_found, "no template"));
  }
  static DeploymentInfo info() {
    DeploymentInfo info;
    info.graph_name = "test";
    info.graph_text = "name: test\n";
    info.isa = "avx2";
    info.plan.context_tokens = 1'000'000;
    info.plan.model_path = "/models/test.gguf";
    info.plan.kv.type = DType::bf16;
    info.plan.stages.resize(2);
    info.plan.stages[1].num_threads = 3;
    info.plan.edges.resize(2);
    info.plan.edges[0].spin = info.plan.edges[1].spin = graph::SpinPolicy::never;
    return info;
  }

  TemporaryFolder folder_;
  std::string path_;
  Core core_;
  std::unique_ptr<Server> server_;
  std::atomic<bool> stop_{false};
  Status ended_ = ok_status();
  std::thread thread_;
};

inline GenerateRequest request() {
  GenerateRequest request;
  request.prompt = TokenIds{0, 1, 2};
  return request;
}

/// All deltas of the first choice until the end.
struct Collected {
  std::string text;
  TokenIds tokens;
  std::vector<Delta> deltas;
  std::optional<Result<Usage>> end;

  void collect(Generating& generating) {
    const TimePoint until = steady_clock().now() + kPatience;
    while (!end && steady_clock().now() < until) {
      Update update = generating.next(std::chrono::milliseconds(100));
      for (Delta& delta : update.deltas) {
        text += delta.text;
        tokens.insert(tokens.end(), delta.tokens.begin(), delta.tokens.end());
        deltas.push_back(std::move(delta));
      }
      end = update.end;
    }
    BOOST_REQUIRE_MESSAGE(end.has_value(), "no end came");
  }
};

}  // namespace chainpump::gateway::rpc
