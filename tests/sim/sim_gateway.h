// The gateway in virtual time: the real Router, and for each lane what actors/lane.h does. It keeps
// what runs, with what was told of it, and when a lane has another first rank it gives that what
// has not ended, each choice alone, from there on. While a lane is away, what is for it waits. A
// gateway that dies loses all that; its clients come again. One thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "graph/router.h"
#include "tests/sim/result_stream.h"
#include "tests/sim/sim_coordinator.h"

namespace chainpump::sim {

/// What a client hears of a request.
struct RequestCallbacks {
  std::function<void(uint32_t choice, const graph::TokenResult&)> on_token;
  std::function<void(uint32_t choice, const graph::ScoreResult&)> on_score;
  std::function<void(uint32_t choice, Result<graph::FinishReason>)> on_end;
};

class SimGateway {
 public:
  SimGateway(SimWorld& world, const Scenario& scenario, const SimAgent& agent);

  void submit(graph::Request request, RequestCallbacks callbacks);
  /// All that is left of it; nothing more is called back.
  void cancel(RequestId id, std::optional<uint32_t> choice);

  /// The coordinator says so.
  void on_first(graph::LaneId lane, LaneFirst first);
  void on_failed(const Error& why);

  void die();
  void start();
  bool is_alive() const { return alive_; }
  size_t num_routed() const { return router_.num_requests(); }

 private:
  struct Asked {
    graph::Request request;
    RequestCallbacks callbacks;
    size_t num_open = 0;  // choices
  };
  /// One choice's way to its caller.
  struct Delivery {
    std::shared_ptr<Asked> asked;
    uint32_t choice = 0;
    std::vector<TokenId> tokens;  // told, here or before
    int32_t next_score = 0;
    bool given = false;  // to a first rank, which may have taken it in
  };
  using Key = std::pair<uint64_t, uint32_t>;  // number on the wire, choice
  struct Lane {
    PlanEpoch since{0};
    std::optional<LaneFirst> first;
    SimProcess* rank = nullptr;            // null: away
    std::shared_ptr<ResultStream> stream;  // with it
    std::map<Key, Delivery> deliveries;
    uint64_t num_again = 0;  // requests given when the lane was opened
  };

  size_t choose(const graph::Request& request);
  void reopen(graph::LaneId lane, LaneFirst first);
  void lose(graph::LaneId lane);
  void give(graph::LaneId lane, uint64_t wire, graph::Request request);
  void give_kept(graph::LaneId lane);
  void take(graph::LaneId lane, const LaneResults& results);
  void end_late(graph::LaneId lane);
  void end(Lane& lane, std::map<Key, Delivery>::iterator delivery, Result<graph::FinishReason> how);
  template <typename What>
  void to_rank(graph::LaneId lane, What what);

  SimWorld& world_;
  const Scenario& scenario_;
  const SimAgent& agent_;
  bool alive_ = true;
  uint64_t life_ = 0;
  std::optional<Error> failed_;
  graph::Router router_;
  std::vector<Lane> lanes_;
  int num_open_ = 0;  // lanes
  uint64_t last_wire_ = 0;
};

}  // namespace chainpump::sim
