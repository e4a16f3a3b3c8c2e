#include "transport/rpc/agent_client.h"

#include "transport/rpc/connection.h"

namespace chainpump::transport::rpc {
namespace {

using Api = schema::NodeAgent;

class ExitServer final : public schema::ExitSink::Server {
 public:
  explicit ExitServer(std::function<void(uint32_t, std::string)> on_exit)
      : on_exit_(std::move(on_exit)) {}
  kj::Promise<void> exited(ExitedContext context) override {
    on_exit_(context.getParams().getRank(), context.getParams().getHow());
    return kj::READY_NOW;
  }

 private:
  std::function<void(uint32_t, std::string)> on_exit_;
};

}  // namespace

AgentClient::AgentClient(RpcThread& thread, UniqueFd socket,
                         std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(socket), "the node agent", std::move(on_disconnect))) {}

AgentClient::~AgentClient() { thread_->drop(connection_); }

void AgentClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply, Api>(connection_, "hello", deadline, std::move(callback),
                                 say_hello<Api>);
}

void AgentClient::spawn(uint32_t rank, Duration deadline, Callback<std::string> callback) {
  thread_->call<std::string, Api>(
      connection_, "spawn", deadline, std::move(callback), [rank](Api::Client& agent) {
        auto request = agent.spawnRequest();
        request.setRank(rank);
        return request.send().then(
            [](auto&& response) { return std::string(response.getSocket().cStr()); });
      });
}

void AgentClient::kill(uint32_t rank, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "kill", deadline, std::move(callback),
                         [rank](Api::Client& agent) {
                           auto request = agent.killRequest();
                           request.setRank(rank);
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

void AgentClient::exits(std::function<void(uint32_t, std::string)> on_exit, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "exits", Duration::max(), std::move(callback),
                         [on_exit = std::move(on_exit)](Api::Client& agent) {
                           auto request = agent.exitsRequest();
                           request.setSink(kj::heap<ExitServer>(on_exit));
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

}  // namespace chainpump::transport::rpc
