// A key of etcd that a leader alone writes, as long as it leads: every write compares the revision
// at which the leader's key was created, which is the term, and that of the write before. So what
// an earlier leader has sent is refused, whenever it arrives, and nothing is written twice or in
// another order. One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "actors/store/etcd_client.h"
#include "actors/store/etcd_keys.h"

namespace chainpump::actors {

struct Fence {
  EtcdKeys keys;
  int64_t term = 0;
  /// Until when the term lasts, as far as is known now (graph/election.h).
  std::function<TimePoint()> until;
};

class FencedKey {
 public:
  FencedKey(std::unique_ptr<EtcdClient> client, Fence fence, std::string key)
      : client_(std::move(client)), fence_(std::move(fence)), key_(std::move(key)) {}

  /// First of all; nothing if it is not there. As long as the term may last it is tried again.
  /// Errors as EtcdClient; cancelled: the term is over.
  Result<std::optional<std::string>> read();
  /// Tried again like that. cancelled: another leads, or may; internal: somebody else has written.
  Status write(const std::string& text);
  /// Ends the deployment, and the term: deletes all that leaders write. As write().
  Status clear();

 private:
  Result<EtcdOutcome> transact(const EtcdTransaction& what);
  bool lasts() const { return steady_clock().now() < fence_.until(); }
  Error over() const;

  const std::unique_ptr<EtcdClient> client_;
  const Fence fence_;
  const std::string key_;
  int64_t revision_ = 0;  // of what was read or written last; 0: the key was not there
};

}  // namespace chainpump::actors
