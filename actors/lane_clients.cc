#include "actors/lane_clients.h"

#include <set>

#include "base/check.h"

namespace chainpump::actors {

void LaneClients::attach(uint64_t client, ResultSink sink) {
  const bool is_new = clients_.emplace(client, Client{std::move(sink), {}, {}}).second;
  CHECK(is_new);
}

std::vector<RequestId> LaneClients::detach(uint64_t client) {
  std::vector<RequestId> orphans;
  const auto found = clients_.find(client);
  if (found == clients_.end()) return orphans;
  for (const auto& [request_id, id] : found->second.requests) {
    orphans.push_back(id);
    requests_.erase(id);
  }
  clients_.erase(found);
  return orphans;
}

Status LaneClients::check(uint64_t client, uint64_t request_id) const {
  const auto found = clients_.find(client);
  if (found == clients_.end())
    return make_error(ErrorCode::invalid_argument, "not attached to the lane");
  if (found->second.requests.contains(request_id))
    return make_error(ErrorCode::invalid_argument, "request {} runs already", request_id);
  return ok_status();
}

void LaneClients::add(RequestId id, uint64_t client, uint64_t request_id, uint32_t sequence_index) {
  Client& of = clients_.at(client);
  ++of.num_taken;
  of.requests.emplace(request_id, id);
  requests_[id] = {client, request_id, sequence_index};
}

std::vector<RequestId> LaneClients::find(uint64_t client,
                                         const std::vector<uint64_t>& request_ids) const {
  std::vector<RequestId> ids;
  const auto found = clients_.find(client);
  if (found == clients_.end()) return ids;
  const std::set<uint64_t> wanted(request_ids.begin(), request_ids.end());
  for (const uint64_t request_id : wanted)
    if (const auto it = found->second.requests.find(request_id); it != found->second.requests.end())
      ids.push_back(it->second);
  return ids;
}

std::vector<RequestId> LaneClients::all() const {
  std::vector<RequestId> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  return ids;
}

rpc::LaneResults* LaneClients::gathered_for(RequestId id, Request& request) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return nullptr;
  request = found->second;
  return &clients_.at(request.client).gathered;
}

void LaneClients::token(RequestId id, rpc::TokenResult result) {
  Request request;
  rpc::LaneResults* gathered = gathered_for(id, request);
  if (gathered == nullptr) return;
  result.request_id = request.request_id;
  result.sequence_index = request.sequence_index;
  gathered->tokens.push_back(std::move(result));
}

void LaneClients::score(RequestId id, rpc::ScoreResult result) {
  Request request;
  rpc::LaneResults* gathered = gathered_for(id, request);
  if (gathered == nullptr) return;
  result.request_id = request.request_id;
  result.sequence_index = request.sequence_index;
  gathered->scores.push_back(result);
}

void LaneClients::end(RequestId id, Status how) {
  Request request;
  rpc::LaneResults* gathered = gathered_for(id, request);
  if (gathered == nullptr) return;
  gathered->ends.push_back({request.request_id, request.sequence_index, std::move(how)});
  clients_.at(request.client).requests.erase(request.request_id);
  requests_.erase(id);
}

void LaneClients::refuse(uint64_t client, uint64_t request_id, uint32_t sequence_index, Error why) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  ++found->second.num_taken;
  found->second.gathered.ends.push_back({request_id, sequence_index, std::move(why)});
}

std::vector<RequestId> LaneClients::flush(const rpc::LaneStats& stats) {
  std::vector<RequestId> refused;
  for (auto& [number, client] : clients_) {
    if (client.gathered.empty()) continue;
    rpc::LaneResults results = std::exchange(client.gathered, {});
    results.stats = stats;
    results.stats.num_taken = client.num_taken;
    // Which requests it was about, if the sink refuses it.
    std::set<uint64_t> concerned;
    for (const rpc::TokenResult& token : results.tokens) concerned.insert(token.request_id);
    for (const rpc::ScoreResult& score : results.scores) concerned.insert(score.request_id);
    std::vector<rpc::RequestEnd> ends = results.ends;
    const Status taken = client.sink(std::move(results));
    if (taken.ok()) continue;
    if (taken.error().code != ErrorCode::overloaded) {
      for (const auto& [request_id, id] : client.requests) refused.push_back(id);
      continue;
    }
    for (const auto& [request_id, id] : client.requests)
      if (concerned.contains(request_id)) refused.push_back(id);
    // What has ended lacks its last results: it did not end well.
    for (rpc::RequestEnd& end : ends) {
      if (concerned.contains(end.request_id)) end.how = taken.error();
      client.gathered.ends.push_back(std::move(end));
    }
  }
  return refused;
}

}  // namespace chainpump::actors
