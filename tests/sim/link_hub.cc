#include "tests/sim/link_hub.h"

#include <algorithm>

namespace chainpump::sim {

using namespace std::chrono_literals;
using graph::LaneId;

std::shared_ptr<LaneRun> LinkHub::run(LaneId lane, PlanEpoch epoch) {
  std::shared_ptr<LaneRun>& run = runs_[lane];
  if (!run || run->epoch != epoch) {
    run = std::make_shared<LaneRun>();
    run->epoch = epoch;
    run->stages.resize(static_cast<size_t>(scenario_.num_stages()));
  }
  return run;
}

void LinkHub::offer(LaneId lane, int edge, PlanEpoch epoch, SimLink::End sender, OnOpen on_open) {
  Waiting& waiting = waiting_[{{lane, edge}, epoch}];
  waiting.sender = std::move(sender);
  waiting.on_sender = std::move(on_open);
  join({lane, edge}, epoch);
}

void LinkHub::accept(LaneId lane, int edge, PlanEpoch epoch, SimLink::End receiver,
                     OnOpen on_open) {
  Waiting& waiting = waiting_[{{lane, edge}, epoch}];
  waiting.receiver = std::move(receiver);
  waiting.on_receiver = std::move(on_open);
  join({lane, edge}, epoch);
}

void LinkHub::join(const Edge& edge, PlanEpoch epoch) {
  const auto found = waiting_.find({edge, epoch});
  if (!found->second.sender || !found->second.receiver) return;
  Waiting both = std::move(found->second);
  waiting_.erase(found);
  const bool returns = edge.second + 1 == scenario_.num_stages();
  const int32_t slots = returns ? scenario_.lanes[edge.first.value].max_microbatches : 0;
  const auto link = std::make_shared<SimLink>(
      world_, scenario_,
      SimLink::Options{.name = fmt::format("lane {} link {}", edge.first, edge.second),
                       .edge = EdgeId(static_cast<uint32_t>(
                           edge.first.value * scenario_.num_stages() + edge.second)),
                       .epoch = epoch,
                       .credits = std::max(scenario_.credits, slots),
                       .returns = returns},
      *both.sender, *both.receiver, [this, edge](SimFrame frame) {
        world_.after(world_.random.up_to(20ms), [this, edge, frame = std::move(frame)] {
          const std::shared_ptr<SimLink> next = newest_[edge];
          if (next) next->receive_stray(frame);
        });
      });
  newest_[edge] = link;
  const Duration handshake = scenario_.delay * 2 + world_.random.up_to(100us);
  world_.after(handshake, [link, both = std::move(both)] {
    both.sender->awake([link, on_open = both.on_sender] { on_open(link); });
    both.receiver->awake([link, on_open = both.on_receiver] { on_open(link); });
  });
}

bool LinkHub::break_one(LaneId lane) {
  const auto found = newest_.find({lane, world_.random.pick(scenario_.num_stages())});
  if (found == newest_.end() || !found->second->leads_on()) return false;
  world_.say("{} breaks", found->second->options().name);
  found->second->break_down();
  return true;
}

void LinkHub::check_books() const {
  for (const auto& [edge, link] : newest_) link->check_books();
}

bool LinkHub::at_rest() const {
  return std::all_of(newest_.begin(), newest_.end(),
                     [](const auto& entry) { return entry.second->at_rest(); });
}

}  // namespace chainpump::sim
