// The clients of a simulated cluster: they ask, come again when refused, cancel at random moments,
// and go on at another gateway when theirs has died, with what they have. For each choice they know
// what it gets alone (fakes::KvChain::expected_tokens), so that whatever comes is compared at once:
// nothing is lost, comes twice, or differs. One thread.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "tests/sim/sim_gateway.h"

namespace chainpump::sim {

struct ClientCounts {
  int asked = 0;
  int completed = 0;
  int cancelled = 0;
  int late = 0;
  int overloaded = 0;
  int failed = 0;  // with the deployment
  int again = 0;   // at another gateway
};

class SimClients {
 public:
  SimClients(SimWorld& world, const Scenario& scenario, SimGateway& gateway);

  /// The deployment serves: the first come.
  void start();
  /// The gateway has died; and it is back.
  void gateway_died();
  void gateway_back();
  void deployment_failed() { deployment_failed_ = true; }

  bool all_ended() const { return num_open_ == 0 && counts_.asked == scenario_.num_requests; }
  TimePoint last_end() const { return last_end_; }
  void check_end() const;
  const ClientCounts& counts() const { return counts_; }

 private:
  struct Choice {
    std::vector<graph::TokenResult> tokens;  // that it gets alone
    std::vector<graph::ScoreResult> scores;
    size_t num_tokens = 0;  // that have come
    size_t num_scores = 0;
    bool ended = false;
    bool has_begun() const { return num_tokens + num_scores > 0; }
  };
  struct Asked {
    graph::Request request;
    std::map<uint32_t, Choice> choices;
    std::vector<RequestId> at_gateway;  // as it stands there
    bool ended = false;
    int refusals = 0;
    uint64_t attempt = 0;
  };

  graph::Request draw_request();
  void draw_prompt(graph::Request& request);
  void ask_new();
  void ask(RequestId id);
  void submit(RequestId id, graph::Request request);
  void on_token(RequestId id, uint32_t index, const graph::TokenResult& token);
  void on_score(RequestId id, uint32_t index, const graph::ScoreResult& score);
  void on_end(RequestId id, uint32_t index, const Result<graph::FinishReason>& how);
  void refused(Asked& asked);
  void cancel(RequestId id);
  void end(Asked& asked, int& counter);
  void end_if_all_have(Asked& asked);

  SimWorld& world_;
  const Scenario& scenario_;
  SimGateway& gateway_;
  std::map<RequestId, Asked> asked_;
  uint64_t last_request_ = 0;  // of those asked
  uint64_t last_given_ = 0;    // of those given to a gateway
  int num_drawn_ = 0;
  int num_open_ = 0;
  bool deployment_failed_ = false;
  TimePoint last_end_;
  ClientCounts counts_;
};

}  // namespace chainpump::sim
