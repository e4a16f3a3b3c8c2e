// The clients of a simulated cluster and the router between them and the lanes: they ask, come
// again when refused, cancel at random moments, go on elsewhere when a lane ends, and know for each
// choice what it gets alone (fakes::KvChain::expected_tokens), so that whatever comes is compared
// at once. One thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "graph/router.h"
#include "tests/sim/sim_lane.h"

namespace chainpump::sim {

struct ClientCounts {
  int asked = 0;
  int completed = 0;
  int cancelled = 0;
  int late = 0;
  int overloaded = 0;
  int disconnected = 0;
};

class SimClients {
 public:
  SimClients(SimWorld& world, const Scenario& scenario,
             const std::vector<std::unique_ptr<SimLane>>& lanes);

  /// Draws every request and when it comes.
  void start();
  void take(const graph::Deliveries& out);
  void lane_started(size_t lane);
  void lane_ended(size_t lane);
  bool all_ended() const { return num_open_ == 0; }
  void check_end() const;
  const ClientCounts& counts() const { return counts_; }

 private:
  struct Expected {
    std::vector<graph::TokenResult> tokens;
    std::vector<graph::ScoreResult> scores;
    size_t num_tokens = 0;  // delivered
    size_t num_scores = 0;
    bool ended = false;
  };
  struct Asked {
    graph::Request request;
    std::map<uint32_t, Expected> choices;
    std::optional<size_t> lane;  // where it was sent
    bool submitted = false;      // and taken
    bool ended = false;
    int attempts = 0;
  };

  graph::Request draw_request();
  void draw_prompt(graph::Request& request);
  void ask(graph::Request request);
  void route(RequestId id);
  void arrive(RequestId id, uint32_t incarnation);
  void refused(Asked& asked, const Error& error, Duration retry_after);
  void cancel(RequestId id);
  void cancel_choice(Asked& asked);
  void end(Asked& asked, int& counter);
  void end_if_all_have(Asked& asked);
  void go_on(const Asked& asked);
  void report(size_t lane);
  Expected* find(const graph::Choice& choice);

  SimWorld& world_;
  const Scenario& scenario_;
  const std::vector<std::unique_ptr<SimLane>>& lanes_;
  graph::Router router_;
  std::map<RequestId, Asked> asked_;
  uint64_t last_request_ = 0;
  int num_open_ = 0;
  int num_started_ = 0;
  ClientCounts counts_;
};

}  // namespace chainpump::sim
