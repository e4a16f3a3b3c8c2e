// Who uses a lane: the clients attached to the first stage, and which of the requests that run
// here is whose: clients number their requests as they like. Results are gathered per client and
// handed over once a step, whatever their number. One thread, that of the stage.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

namespace rpc = transport::rpc;

/// Where one client's results go. Must not block. overloaded: they do not fit (ends alone always
/// do); disconnected: the client is gone.
using ResultSink = std::function<Status(rpc::LaneResults)>;

class LaneClients {
 public:
  /// Ids are never used twice.
  void attach(uint64_t client, ResultSink sink);
  /// Forgets the client and returns what ran for it.
  std::vector<RequestId> detach(uint64_t client);
  bool has(uint64_t client) const { return clients_.contains(client); }

  /// invalid_argument if the client uses this request id already, or is not attached.
  Status check(uint64_t client, uint64_t request_id) const;
  /// From here on `id`, never used before, is this client's request, until each of its sequences,
  /// `num_sequences` from `first_sequence` on, has ended.
  void add(RequestId id, uint64_t client, uint64_t request_id, uint32_t first_sequence,
           int32_t num_sequences);
  std::vector<RequestId> find(uint64_t client, const std::vector<uint64_t>& request_ids) const;
  std::vector<RequestId> all() const;

  /// The result's request and sequence index are filled in. An unknown request is ignored.
  void token(RequestId id, uint32_t sequence, rpc::TokenResult result);
  void score(RequestId id, uint32_t sequence, rpc::ScoreResult result);
  /// The last for this sequence.
  void end(RequestId id, uint32_t sequence, Status how);
  /// The last for this request: the end of each sequence that has not ended.
  void end_all(RequestId id, const Status& how);
  /// The end of each sequence of a request that was never taken in.
  void refuse(uint64_t client, uint64_t request_id, uint32_t first_sequence, int32_t num_sequences,
              const Error& why);

  /// Hands over what has gathered, with what the lane says of itself (the number taken is filled
  /// in), and that alone to clients for whom nothing has, if it is for everyone. Requests whose
  /// results found no room, and which must therefore be ended, are returned: of a client that is
  /// gone, all it has.
  std::vector<RequestId> flush(const rpc::LaneStats& stats, bool to_everyone = false);

 private:
  struct Request {
    uint64_t client = 0;
    uint64_t request_id = 0;
    std::set<uint32_t> open;  // sequences that have not ended
  };
  struct Client {
    ResultSink sink;
    std::map<uint64_t, RequestId> requests;  // by the client's number
    rpc::LaneResults gathered;
    uint64_t num_taken = 0;  // requests, those refused among them
  };
  rpc::LaneResults& gathered_for(const Request& request);

  std::map<uint64_t, Client> clients_;
  std::map<RequestId, Request> requests_;
};

}  // namespace chainpump::actors
