#include "actors/weight_sessions.h"

#include <algorithm>

namespace chainpump::actors {

namespace rpc = transport::rpc;

namespace {

constexpr Duration kCallMax = std::chrono::seconds(10);  // also of a piece

}  // namespace

Result<std::unique_ptr<WeightSessions>> WeightSessions::create(
    const rpc::ModelIdentity& model, std::vector<rpc::WeightSource> sources,
    std::shared_ptr<const rpc::Credentials> credentials) {
  ASSIGN_OR_RETURN(rpc::RpcThread thread, rpc::RpcThread::create());
  return std::unique_ptr<WeightSessions>(
      new WeightSessions(model, std::move(sources), std::move(credentials), std::move(thread)));
}

WeightSessions::WeightSessions(const rpc::ModelIdentity& model,
                               std::vector<rpc::WeightSource> sources,
                               std::shared_ptr<const rpc::Credentials> credentials,
                               rpc::RpcThread rpc)
    : model_(model),
      sources_(std::move(sources)),
      credentials_(std::move(credentials)),
      rpc_(std::move(rpc)),
      clients_(sources_.size()) {}

WeightSessions::Callback WeightSessions::answering(const graph::WeightFetch::Ask& ask) const {
  return [inbox = inbox_, ask](Result<Bytes> bytes) {
    const std::lock_guard lock(inbox->mutex);
    inbox->answers.push_back({ask, std::move(bytes)});
    inbox->filled.notify_one();
  };
}

/// Calls come after its hello: whoever refuses that refuses them.
Result<rpc::WeightsClient*> WeightSessions::client(size_t source) {
  if (!clients_[source]) {
    const rpc::WeightSource& to = sources_[source];
    const rpc::Role role = to.is_coordinator ? rpc::Role::coordinator : rpc::Role::node;
    ASSIGN_OR_RETURN(rpc::Channel channel,
                     rpc::open_channel(to.address, credentials_, {role, to.name}));
    clients_[source] =
        std::make_unique<rpc::WeightsClient>(rpc_, std::move(channel), [](const Error&) {});
    clients_[source]->hello(kCallMax, [](const Result<rpc::HelloReply>&) {});
  }
  return clients_[source].get();
}

void WeightSessions::ask(const graph::WeightFetch::Ask& ask) {
  Callback done = answering(ask);
  const Result<rpc::WeightsClient*> to = client(ask.source);
  if (!to.ok()) return done(to.error());
  if (ask.piece) return (*to)->read(model_, *ask.piece, kCallMax, std::move(done));
  (*to)->have(model_, kCallMax, [done](Result<std::vector<uint8_t>> has) {
    if (!has.ok()) return done(has.error());
    const auto bytes = std::as_bytes(std::span(*has));
    done(Bytes(bytes.begin(), bytes.end()));
  });
}

void WeightSessions::ask_manifest(size_t source) {
  Callback done = answering({source});
  const Result<rpc::WeightsClient*> to = client(source);
  if (!to.ok()) return done(to.error());
  (*to)->manifest(model_, kCallMax, std::move(done));
}

std::optional<WeightSessions::Answer> WeightSessions::wait(TimePoint until) {
  std::unique_lock lock(inbox_->mutex);
  inbox_->filled.wait_for(lock, std::max(Duration(0), until - steady_clock().now()),
                          [&] { return !inbox_->answers.empty(); });
  if (inbox_->answers.empty()) return std::nullopt;
  Answer answer = std::move(inbox_->answers.front());
  inbox_->answers.pop_front();
  return answer;
}

}  // namespace chainpump::actors
