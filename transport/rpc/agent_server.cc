#include "transport/rpc/agent_server.h"

#include <set>

#include "transport/rpc/convert.h"
#include "transport/rpc/serving.h"

namespace chainpump::transport::rpc {
namespace {

/// One peer that wants to hear of exits; lives as its call does.
class ExitWatch {
 public:
  ExitWatch(schema::ExitSink::Client sink, std::set<ExitWatch*>& all)
      : sink_(kj::mv(sink)), all_(all) {
    all_.insert(this);
  }
  ~ExitWatch() { all_.erase(this); }
  KJ_DISALLOW_COPY(ExitWatch);

  void tell(uint32_t rank, uint32_t run, const std::string& how) {
    auto request = sink_.exitedRequest();
    request.setRank(rank);
    request.setRun(run);
    request.setHow(how.c_str());
    task_ = task_.then([request = kj::mv(request)]() mutable { return request.send(); })
                .eagerlyEvaluate([](kj::Exception&&) {});  // it has gone: so will its call
  }

 private:
  schema::ExitSink::Client sink_;
  std::set<ExitWatch*>& all_;
  kj::Promise<void> task_ = kj::READY_NOW;
};

}  // namespace

struct AgentServer::Impl {
  explicit Impl(AgentHandler& given) : handler(given), serving("") {}
  AgentHandler& handler;
  Serving serving;
  std::set<ExitWatch*> watches;  // the loop's thread
};

namespace {

class AgentApi final : public schema::NodeAgent::Server {
 public:
  AgentApi(Serving& serving, AgentHandler& handler, std::set<ExitWatch*>& watches)
      : peer_(serving), handler_(handler), watches_(watches) {}

  kj::Promise<void> hello(HelloContext context) override {
    peer_.greet(context);
    return kj::READY_NOW;
  }
  kj::Promise<void> spawn(SpawnContext context) override {
    peer_.check(context);
    peer_.check_term();
    const auto params = context.getParams();
    Result<std::string> socket = handler_.on_spawn(params.getRank(), params.getRun());
    context.getResults().setSocket(value_of(socket).c_str());
    return kj::READY_NOW;
  }
  kj::Promise<void> kill(KillContext context) override {
    peer_.check(context);
    peer_.check_term();
    handler_.on_kill(context.getParams().getRank());
    return kj::READY_NOW;
  }
  kj::Promise<void> lead(LeadContext context) override {
    peer_.check(context);
    peer_.begin_term(context.getParams().getTerm());
    return kj::READY_NOW;
  }
  kj::Promise<void> list(ListContext context) override {
    peer_.check(context);
    const std::vector<AgentProcess> processes = handler_.on_list();
    write_list(context.getResults().initProcesses(num(processes)), processes);
    return kj::READY_NOW;
  }
  kj::Promise<void> beat(BeatContext context) override {
    peer_.check(context);
    return kj::READY_NOW;
  }
  kj::Promise<void> exits(ExitsContext context) override {
    peer_.check(context);
    return kj::Promise<void>(kj::NEVER_DONE)
        .attach(kj::heap<ExitWatch>(context.getParams().getSink(), watches_), peer_.open_call());
  }

 private:
  Peer peer_;
  AgentHandler& handler_;
  std::set<ExitWatch*>& watches_;
};

}  // namespace

AgentServer::AgentServer(AgentHandler& handler) : impl_(std::make_unique<Impl>(handler)) {}
AgentServer::~AgentServer() = default;

Status AgentServer::run(UniqueFd listener, const Admission& admission) {
  return serve_control(
      impl_->serving, UniqueFd(), std::move(listener),
      [this](const std::optional<Identity>&) -> capnp::Capability::Client {
        return kj::heap<AgentApi>(impl_->serving, impl_->handler, impl_->watches);
      },
      admission);
}

void AgentServer::stop() {
  impl_->serving.inbox->post([impl = impl_.get()] { impl->serving.stop->fulfill(); });
}

void AgentServer::tell_exit(uint32_t rank, uint32_t run, std::string how) {
  impl_->serving.inbox->post([impl = impl_.get(), rank, run, how = std::move(how)] {
    for (ExitWatch* watch : impl->watches) watch->tell(rank, run, how);
  });
}

}  // namespace chainpump::transport::rpc
