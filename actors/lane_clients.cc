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

void LaneClients::add(RequestId id, uint64_t client, uint64_t request_id, uint32_t first_sequence,
                      int32_t num_sequences) {
  Client& of = clients_.at(client);
  ++of.num_taken;
  of.requests.emplace(request_id, id);
  Request& request = requests_[id];
  request = {.client = client, .request_id = request_id, .open = {}};
  for (int32_t i = 0; i < num_sequences; ++i)
    request.open.insert(first_sequence + static_cast<uint32_t>(i));
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

rpc::LaneResults& LaneClients::gathered_for(const Request& request) {
  return clients_.at(request.client).gathered;
}

void LaneClients::token(RequestId id, uint32_t sequence, rpc::TokenResult result) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  result.request_id = found->second.request_id;
  result.sequence_index = sequence;
  gathered_for(found->second).tokens.push_back(std::move(result));
}

void LaneClients::score(RequestId id, uint32_t sequence, rpc::ScoreResult result) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  result.request_id = found->second.request_id;
  result.sequence_index = sequence;
  gathered_for(found->second).scores.push_back(result);
}

void LaneClients::end(RequestId id, uint32_t sequence, Status how) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  Request& request = found->second;
  if (request.open.erase(sequence) == 0) return;
  gathered_for(request).ends.push_back({request.request_id, sequence, std::move(how)});
  if (!request.open.empty()) return;
  clients_.at(request.client).requests.erase(request.request_id);
  requests_.erase(found);
}

void LaneClients::end_all(RequestId id, const Status& how) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  const std::set<uint32_t> open = found->second.open;
  for (const uint32_t sequence : open) end(id, sequence, how);
}

void LaneClients::refuse(uint64_t client, uint64_t request_id, uint32_t first_sequence,
                         int32_t num_sequences, const Error& why) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  ++found->second.num_taken;
  for (int32_t i = 0; i < num_sequences; ++i)
    found->second.gathered.ends.push_back(
        {request_id, first_sequence + static_cast<uint32_t>(i), why});
}

std::vector<RequestId> LaneClients::flush(const rpc::LaneStats& stats, bool to_everyone) {
  std::vector<RequestId> refused;
  for (auto& [number, client] : clients_) {
    if (client.gathered.empty() && !to_everyone) continue;
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
