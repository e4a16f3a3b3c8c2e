#include "transport/rpc/agent_client.h"

#include "transport/rpc/connection.h"
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {
namespace {

using Api = schema::NodeAgent;

class ExitServer final : public schema::ExitSink::Server {
 public:
  explicit ExitServer(std::function<void(uint32_t, uint32_t, std::string)> on_exit)
      : on_exit_(std::move(on_exit)) {}
  kj::Promise<void> exited(ExitedContext context) override {
    const auto params = context.getParams();
    on_exit_(params.getRank(), params.getRun(), params.getHow());
    return kj::READY_NOW;
  }

 private:
  std::function<void(uint32_t, uint32_t, std::string)> on_exit_;
};

}  // namespace

AgentClient::AgentClient(RpcThread& thread, Channel channel,
                         std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(channel), "the node agent", std::move(on_disconnect))) {}

AgentClient::~AgentClient() { thread_->drop(connection_); }

void AgentClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply, Api>(connection_, "hello", deadline, std::move(callback),
                                 say_hello<Api>);
}

void AgentClient::lead(uint64_t term, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "lead", deadline, std::move(callback),
                         [term](Api::Client& agent) {
                           auto request = agent.leadRequest();
                           request.setTerm(term);
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

void AgentClient::spawn(uint32_t rank, uint32_t run, Duration deadline,
                        Callback<std::string> callback) {
  thread_->call<std::string, Api>(
      connection_, "spawn", deadline, std::move(callback), [rank, run](Api::Client& agent) {
        auto request = agent.spawnRequest();
        request.setRank(rank);
        request.setRun(run);
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

void AgentClient::exits(std::function<void(uint32_t, uint32_t, std::string)> on_exit,
                        Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "exits", Duration::max(), std::move(callback),
                         [on_exit = std::move(on_exit)](Api::Client& agent) {
                           auto request = agent.exitsRequest();
                           request.setSink(kj::heap<ExitServer>(on_exit));
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

void AgentClient::list(Duration deadline, Callback<std::vector<AgentProcess>> callback) {
  thread_->call<std::vector<AgentProcess>, Api>(
      connection_, "list", deadline, std::move(callback), [](Api::Client& agent) {
        return agent.listRequest().send().then([](auto&& response) {
          std::vector<AgentProcess> processes;
          read_list(response.getProcesses(), processes);
          return processes;
        });
      });
}

void AgentClient::beat(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "beat", deadline, std::move(callback),
                         [](Api::Client& agent) {
                           return agent.beatRequest().send().then([](auto&&) { return Ok{}; });
                         });
}

}  // namespace chainpump::transport::rpc
