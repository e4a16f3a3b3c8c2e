// The load of `chainpump chaos`: clients that each have one request under way with a service, one
// after the other, from a pool whose calm answers are known. Thread rule: one thread drives it; a
// LiveRequest may be looked at from any.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "cli/chaos_check.h"
#include "cli/under_way.h"
#include "gateway/service.h"

namespace chainpump::cli {

struct CalmRequest {
  gateway::GenerateRequest request;
  CalmAnswer answer;
};

/// The pool's requests, answered one and all by `service`, some at a time. An error if one fails,
/// or `under_way` is stopped.
Result<std::vector<CalmRequest>> answer_calmly(gateway::Service& service,
                                               std::vector<gateway::GenerateRequest> requests,
                                               UnderWay& under_way);

/// A request that was sent.
class LiveRequest {
 public:
  LiveRequest(uint64_t number, const CalmRequest& asked)
      : number_(number), asked_(asked), receipt_(asked.request.num_choices) {}

  uint64_t number() const { return number_; }
  const CalmRequest& asked() const { return asked_; }
  size_t num_tokens() const;
  bool has_ended() const;
  // Once it has ended, which nothing follows:
  const Receipt& receipt() const { return receipt_; }
  const Status& end() const { return *end_; }

 private:
  friend class ChaosLoad;
  void add(const gateway::Update& update, TimePoint at);
  void set_end(Status end);

  const uint64_t number_;
  const CalmRequest& asked_;
  mutable std::mutex mutex_;
  Receipt receipt_;
  std::optional<Status> end_;
};

class ChaosLoad {
 public:
  using Requests = std::vector<std::shared_ptr<LiveRequest>>;

  /// All of these outlive it. Its first request has the number `first`; the pool is gone through
  /// in a circle.
  ChaosLoad(const std::vector<CalmRequest>& pool, gateway::Service& service, UnderWay& under_way,
            uint64_t first);
  /// Sends no more, and waits for the end of those under way.
  ~ChaosLoad();

  Status start(size_t num_clients);
  /// So many requests more, from none, may be sent.
  void allow(uint64_t count);
  void close();

  /// Those that were sent and have not ended.
  Requests unfinished() const;
  /// Those that have ended since it was asked last.
  Requests take_ended();
  /// Why no client goes on: the connection is lost.
  std::optional<Error> failure() const;

 private:
  void be_client();
  std::shared_ptr<LiveRequest> begin_next();
  Status send(LiveRequest& request);

  const std::vector<CalmRequest>& pool_;
  gateway::Service& service_;
  UnderWay& under_way_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_;
  uint64_t num_allowed_ = 0;
  bool closing_ = false;
  Requests unfinished_;
  Requests ended_;
  std::optional<Error> failure_;
  std::vector<std::thread> clients_;
};

}  // namespace chainpump::cli
