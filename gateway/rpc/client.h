// A gateway behind a Unix socket, as a Service: one connection and one thread for it. No header of
// the RPC library shows.
//
// Thread rule: as gateway/service.h. Every call waits, in the caller's thread, for at most as long
// as is said with it. When the connection is lost, whatever waits is answered with `disconnected`.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "gateway/service.h"

namespace chainpump::gateway::rpc {

class Client final : public Service {
 public:
  /// Connects and authenticates. not_found: nobody listens there; deadline_exceeded: somebody does
  /// and does not answer; invalid_argument: we may not enter.
  static Result<std::unique_ptr<Client>> connect(const std::string& path, Duration patience);
  /// The same over a connected socket.
  static Result<std::unique_ptr<Client>> connect(UniqueFd socket, Duration patience);
  /// Drops the connection: the gateway cancels what runs.
  ~Client() override;

  const DeploymentInfo& deployment() const override;
  Status wait_ready(Duration patience) override;
  Result<TokenIds> tokenize(const Prompt& prompt) override;
  Result<std::unique_ptr<Generating>> generate(const GenerateRequest& request) override;
  /// unimplemented if it names a file.
  Result<std::unique_ptr<Scored>> score(const ScoreRequest& request) override;
  Result<StatusReport> status(Duration patience) override;
  Result<Readiness> readiness(Duration patience) override;
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration patience) override;
  /// Events with a number above `after`, on the connection's thread, until this client ends.
  void watch(uint64_t after, std::function<void(std::vector<Event>)> on_events);

  struct Impl;

 private:
  explicit Client(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace chainpump::gateway::rpc
