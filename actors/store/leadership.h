// Whether this coordinator leads: the shell of graph/election over etcd. Calls to the store are
// made on threads of their own, so that whoever has to step down does so in time, whatever hangs.
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/store/etcd_client.h"
#include "actors/store/etcd_keys.h"
#include "actors/store/fenced_key.h"

namespace chainpump::actors {

struct LeadershipOptions {
  HttpServers servers;
  EtcdKeys keys;
  Candidate self;
  Duration lease = std::chrono::seconds(2);
};

/// Called on a thread of the leadership's, which nothing may hold up: what is to be long is done
/// elsewhere.
struct LeadershipObserver {
  /// At most once.
  std::function<void(Fence)> on_lead;
  /// It leads no more, or somebody else may: whatever it does from here on is too late. At most
  /// once, after on_lead; most likely this process ends here.
  std::function<void(const std::string& why)> on_step_down;
  /// Another leads, or another than before.
  std::function<void(const Candidate& leader)> on_other = {};
  /// The store cannot be reached, in a sentence; empty: it can again.
  std::function<void(const std::string& why)> on_store = {};
};

class Leadership {
 public:
  /// Is a candidate from now on. no_room.
  static Result<std::unique_ptr<Leadership>> start(const LeadershipOptions& options,
                                                   LeadershipObserver observer);
  /// Gives its lease back, so that another may lead at once. Not on one of its threads.
  ~Leadership();
  Leadership(const Leadership&) = delete;
  Leadership& operator=(const Leadership&) = delete;

 private:
  struct Impl;
  explicit Leadership(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Who stands for election, and who leads, if anybody does.
struct Candidates {
  std::vector<Candidate> all;
  std::optional<Candidate> leader;
};
Result<Candidates> find_candidates(EtcdClient& client, const EtcdKeys& keys, TimePoint deadline);

}  // namespace chainpump::actors
