#include "graph/fair_queue.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace chainpump::graph {

void FairQueue::set_weight(TenantId tenant, double weight) {
  CHECK_MSG(weight > 0 && std::isfinite(weight), "weight {} of tenant {}", weight, tenant);
  tenants_[tenant].weight = weight;
}

void FairQueue::push_back(const Item& item) { push(item, false); }
void FairQueue::push_front(const Item& item) { push(item, true); }

void FairQueue::push(const Item& item, bool in_front) {
  CHECK(!places_.contains(item.id));
  Tenant& tenant = tenants_[item.tenant];
  if (!tenant.active()) enter(item.tenant, tenant);
  ++tenant.num_waiting;
  Level& level = levels_[item.priority];
  const auto [entry, is_new] = level.lanes.try_emplace(item.tenant);
  Lane& lane = entry->second;
  if (is_new) {
    lane.key = key_of(item.tenant);
    level.order.insert(lane.key);
  }
  const auto where = in_front ? lane.items.begin() : lane.items.end();
  places_[item.id] = {item.priority, lane.items.insert(where, item)};
}

FairQueue::Key FairQueue::key_of(TenantId id) const {
  const Tenant& tenant = tenants_.at(id);
  return {tenant.served, tenant.turn, id};
}

// The keys that stand in the order are lower bounds: one that is true and first is the least of
// all.
std::map<TenantId, FairQueue::Lane>::iterator FairQueue::first_lane(Level& level) const {
  for (;;) {
    const Key noted = *level.order.begin();
    const auto lane = level.lanes.find(std::get<TenantId>(noted));
    const Key key = key_of(lane->first);
    if (key == noted) return lane;
    level.order.erase(level.order.begin());
    lane->second.key = key;
    level.order.insert(key);
  }
}

std::optional<FairQueue::Item> FairQueue::front() const {
  if (levels_.empty()) return std::nullopt;
  return first_lane(levels_.begin()->second)->second.items.front();
}

void FairQueue::pop_front() {
  CHECK(!levels_.empty());
  const auto level = levels_.begin();
  const auto lane = first_lane(level->second);
  const TenantId id = lane->first;
  const auto item = lane->second.items.begin();
  places_.erase(item->id);
  take(level->second, lane, item);
  if (level->second.lanes.empty()) levels_.erase(level);
  Tenant& tenant = tenants_.at(id);
  tenant.turn = ++last_turn_;
  --tenant.num_waiting;
  if (!tenant.active()) leave(id, tenant);
}

bool FairQueue::erase(SequenceId id) {
  const auto place = places_.find(id);
  if (place == places_.end()) return false;
  const auto level = levels_.find(place->second.priority);
  const TenantId tenant_id = place->second.item->tenant;
  take(level->second, level->second.lanes.find(tenant_id), place->second.item);
  if (level->second.lanes.empty()) levels_.erase(level);
  places_.erase(place);
  Tenant& tenant = tenants_.at(tenant_id);
  --tenant.num_waiting;
  if (!tenant.active()) leave(tenant_id, tenant);
  return true;
}

void FairQueue::take(Level& level, std::map<TenantId, Lane>::iterator lane,
                     std::list<Item>::iterator item) const {
  lane->second.items.erase(item);
  if (!lane->second.items.empty()) return;
  level.order.erase(lane->second.key);
  level.lanes.erase(lane);
}

void FairQueue::charge(TenantId id, int64_t num_tokens) {
  CHECK_GE(num_tokens, 0);
  Tenant& tenant = tenants_[id];
  tenant.served += static_cast<double>(num_tokens) / tenant.weight;
}

void FairQueue::add_running(TenantId id) {
  Tenant& tenant = tenants_[id];
  if (!tenant.active()) enter(id, tenant);
  ++tenant.num_running;
}

void FairQueue::remove_running(TenantId id) {
  Tenant& tenant = tenants_[id];
  CHECK_GT(tenant.num_running, 0);
  --tenant.num_running;
  if (!tenant.active()) leave(id, tenant);
}

double FairQueue::virtual_tokens(TenantId tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second.served;
}

// From idling. Mends the least of the active first, as first_lane() does.
void FairQueue::enter(TenantId id, Tenant& tenant) {
  while (!active_.empty()) {
    const auto [noted, least] = *active_.begin();
    Tenant& other = tenants_.at(least);
    if (other.served == noted) {
      lift_ = std::max(lift_, noted);
      break;
    }
    active_.erase(active_.begin());
    other.active_key = other.served;
    active_.emplace(other.served, least);
  }
  tenant.served = std::max(tenant.served, lift_);
  tenant.turn = ++last_turn_;
  tenant.active_key = tenant.served;
  active_.emplace(tenant.served, id);
}

// The last to leave takes no credit home either: whoever comes next starts where it was.
void FairQueue::leave(TenantId id, Tenant& tenant) {
  active_.erase({tenant.active_key, id});
  if (active_.empty()) lift_ = std::max(lift_, tenant.served);
}

}  // namespace chainpump::graph
