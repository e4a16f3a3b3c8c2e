// Who goes next: strict between priorities; between the tenants of one priority, the one that has
// been served least for its weight ("virtual tokens", deficit-based); within a tenant first come,
// first served. Tenants that have been served alike take turns. A tenant that comes back from
// idling is lifted to the least of the active, so that nobody saves up credit; nobody's debt is
// forgiven. Tenants are remembered for good: there are as many as the operator has named. Pure; one
// thread. O(log tenants) per operation, amortised: served tokens are noted at once, and a tenant's
// place is mended when it is looked at, since it can only have moved back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "base/ids.h"

namespace chainpump::graph {

using TenantId = Id<struct TenantTag, uint32_t>;

class FairQueue {
 public:
  struct Item {
    SequenceId id;
    TenantId tenant;
    int32_t priority = 0;  // higher goes first
  };

  /// For what is served from now on. Greater than 0; 1 unless set.
  void set_weight(TenantId tenant, double weight);
  /// Newcomers. The id must not be queued yet.
  void push_back(const Item& item);
  /// Comes before others of its tenant and priority (preempted).
  void push_front(const Item& item);
  /// Takes it out, wherever it stands; false if it is not queued.
  bool erase(SequenceId id);
  /// Who goes next; empty if nobody waits.
  std::optional<Item> front() const;
  /// Takes out what front() said; somebody must wait.
  void pop_front();
  /// Tokens were served to a tenant, waiting or not.
  void charge(TenantId tenant, int64_t num_tokens);
  /// A sequence of this tenant runs / ended running: keeps it "active" for the lifting rule.
  void add_running(TenantId tenant);
  void remove_running(TenantId tenant);
  size_t size() const { return places_.size(); }
  /// Tokens served over weight, as far as the order goes: with what it was lifted by.
  double virtual_tokens(TenantId tenant) const;

 private:
  // The order between tenants: served least, then longest since its last turn.
  using Key = std::tuple<double, uint64_t, TenantId>;
  struct Tenant {
    double weight = 1;
    double served = 0;  // virtual tokens
    uint64_t turn = 0;
    int64_t num_waiting = 0;
    int64_t num_running = 0;
    double active_key = 0;  // as it stands in active_
    bool active() const { return num_waiting + num_running > 0; }
  };
  // What one tenant has waiting at one priority.
  struct Lane {
    std::list<Item> items;
    Key key;  // as it stands in the level's order; never more than the true one
  };
  struct Level {
    std::map<TenantId, Lane> lanes;
    std::set<Key> order;
  };
  struct Place {
    int32_t priority;
    std::list<Item>::iterator item;
  };

  void push(const Item& item, bool in_front);
  void take(Level& level, std::map<TenantId, Lane>::iterator lane,
            std::list<Item>::iterator item) const;
  Key key_of(TenantId id) const;
  std::map<TenantId, Lane>::iterator first_lane(Level& level) const;
  void enter(TenantId id, Tenant& tenant);
  void leave(TenantId id, Tenant& tenant);

  std::unordered_map<TenantId, Tenant> tenants_;
  std::unordered_map<SequenceId, Place> places_;
  // Mended when looked at, which says nothing new.
  mutable std::map<int32_t, Level, std::greater<>> levels_;
  std::set<std::pair<double, TenantId>> active_;  // by served, or what it once was
  double lift_ = 0;  // the least of the active, as far as it is known; never falls
  uint64_t last_turn_ = 0;
};

}  // namespace chainpump::graph
