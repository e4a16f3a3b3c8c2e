// What goes on elsewhere: at a lane's next first rank, or in another lane.
#include <algorithm>
#include <utility>

#include "actors/lane.h"

namespace chainpump::actors {
namespace {

// Of what is given in one call: a message is bounded, and so are the calls that wait for an answer.
constexpr size_t kBatchRequests = 64;
constexpr size_t kBatchTokens = size_t{1} << 20;

}  // namespace

/// In the order in which they came, under new numbers.
Lane::Batches Lane::batches_of_kept() {
  Batches batches;
  size_t num_tokens = 0;
  num_again_ = 0;
  for (const Together& each : groups(std::exchange(deliveries_, {}))) {
    rpc::GenerateRequest wire = take_in(each, true);
    const size_t tokens = wire.prompt.size() + wire.generated.size();
    if (batches.empty() || batches.back().size() == kBatchRequests ||
        num_tokens + tokens > kBatchTokens) {
      batches.emplace_back();
      num_tokens = 0;
    }
    num_tokens += tokens;
    batches.back().push_back(std::move(wire));
    ++num_again_;
  }
  return batches;
}

/// What a rank was given goes on by itself; the sequences of a request that none was given, as they
/// were asked for.
std::vector<Lane::Together> Lane::groups(Deliveries deliveries) {
  std::vector<Together> groups;
  std::optional<uint64_t> whole;  // the number of the last request that no rank was given
  for (auto& [key, delivery] : deliveries) {
    const bool goes_with_last = !delivery->given && key.first == whole;
    if (!goes_with_last) groups.emplace_back();
    if (!delivery->given) whole = key.first;
    groups.back().push_back({key.second, std::move(delivery)});
  }
  return groups;
}

/// Under a new number; `gives`: to a rank, as this says.
rpc::GenerateRequest Lane::take_in(const Together& together, bool gives) {
  const uint64_t wire_id = ++last_wire_id_;
  LaneDelivery& first = *together.front().second;
  const TimePoint now = clock_.now();
  rpc::GenerateRequest wire =
      first.given ? first.again(wire_id, now) : first.request()->wire(wire_id, now);
  for (const auto& [index, delivery] : together) {
    delivery->given |= gives;
    deliveries_.emplace(Key(wire_id, index), delivery);
  }
  return wire;
}

std::vector<Lane::Together> Lane::give_up(std::function<void()>& then) {
  Deliveries leaving;
  std::vector<uint64_t> wire_ids;
  const std::lock_guard lock(mutex_);
  for (auto it = deliveries_.begin(); it != deliveries_.end();) {
    const LaneDelivery& delivery = *it->second;
    if (delivery.is_over() || delivery.cancelled || !delivery.may_move()) {
      ++it;
      continue;
    }
    if (wire_ids.empty() || wire_ids.back() != it->first.first) wire_ids.push_back(it->first.first);
    leaving.insert(deliveries_.extract(it++));
  }
  if (port_ && !wire_ids.empty())
    then = [this, port = port_, wire_ids = std::move(wire_ids)]() mutable {
      port->cancel(options_.id, std::move(wire_ids), kLaneControlDeadline,
                   [](const Result<Ok>&) {});
      release(std::move(port));
    };
  return groups(std::move(leaving));
}

std::function<void()> Lane::go_on(const Together& together) {
  const std::lock_guard lock(mutex_);
  rpc::GenerateRequest wire = take_in(together, port_ != nullptr);
  if (!port_) {
    wake_at(together.front().second->request()->deadline);
    return [] {};
  }
  return [this, port = port_, connection = connection_, wire = std::move(wire)]() mutable {
    give(*port, connection, {std::move(wire)});
    release(std::move(port));
  };
}

}  // namespace chainpump::actors
