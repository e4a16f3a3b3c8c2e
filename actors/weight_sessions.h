// Connections to nodes that may have weights, one for each, made when it is asked first and anew
// after it was lost. Every call is answered once, on the thread that calls wait(). Used by
// actors/weights_fetch.cc only; one thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "graph/weight_fetch.h"
#include "transport/rpc/weights_client.h"

namespace chainpump::actors {

class WeightSessions {
 public:
  using Bytes = std::vector<std::byte>;
  struct Answer {
    graph::WeightFetch::Ask ask;
    Result<Bytes> bytes;  // of the piece, or of what it has
  };

  static Result<std::unique_ptr<WeightSessions>> create(
      const transport::rpc::ModelIdentity& model, std::vector<transport::rpc::WeightSource> sources,
      std::shared_ptr<const transport::rpc::Credentials> credentials);

  void ask(const graph::WeightFetch::Ask& ask);
  /// Instead of a piece.
  void ask_manifest(size_t source);
  /// Nothing: none has come by then.
  std::optional<Answer> wait(TimePoint until);
  /// It is connected to anew when it is asked again. Calls that are under way are answered.
  void drop(size_t source) { clients_[source].reset(); }

 private:
  using Callback = transport::rpc::Callback<Bytes>;
  /// What callbacks share, which may come when this has gone.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable filled;
    std::deque<Answer> answers;
  };
  WeightSessions(const transport::rpc::ModelIdentity& model,
                 std::vector<transport::rpc::WeightSource> sources,
                 std::shared_ptr<const transport::rpc::Credentials> credentials,
                 transport::rpc::RpcThread rpc);
  Result<transport::rpc::WeightsClient*> client(size_t source);
  Callback answering(const graph::WeightFetch::Ask& ask) const;

  const transport::rpc::ModelIdentity model_;
  const std::vector<transport::rpc::WeightSource> sources_;
  const std::shared_ptr<const transport::rpc::Credentials> credentials_;
  const std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  transport::rpc::RpcThread rpc_;
  std::vector<std::unique_ptr<transport::rpc::WeightsClient>> clients_;
};

}  // namespace chainpump::actors
