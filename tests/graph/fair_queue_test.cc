#include "graph/fair_queue.h"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace chainpump::graph {
namespace {

FairQueue::Item item(uint64_t id, uint32_t tenant, int32_t priority = 0) {
  return {SequenceId(id), TenantId(tenant), priority};
}

uint64_t pop(FairQueue& queue) {
  const auto next = queue.front();
  BOOST_TEST_REQUIRE(next.has_value());
  queue.pop_front();
  return next->id.value;
}

std::vector<uint64_t> pop_all(FairQueue& queue) {
  std::vector<uint64_t> ids;
  while (queue.size() > 0) ids.push_back(pop(queue));
  return ids;
}

void check_order(FairQueue& queue, const std::vector<uint64_t>& expected) {
  BOOST_TEST(pop_all(queue) == expected, boost::test_tools::per_element());
  BOOST_TEST(!queue.front().has_value());
}

BOOST_AUTO_TEST_SUITE(fair_queue)

BOOST_AUTO_TEST_CASE(an_empty_queue_has_no_front) {
  FairQueue queue;
  BOOST_TEST(!queue.front().has_value());
  BOOST_TEST(queue.size() == 0u);
  BOOST_TEST(!queue.erase(SequenceId(1)));
}

BOOST_AUTO_TEST_CASE(first_come_first_served_within_a_tenant) {
  FairQueue queue;
  for (uint64_t id : {5, 3, 9}) queue.push_back(item(id, 1));
  check_order(queue, {5, 3, 9});
}

BOOST_AUTO_TEST_CASE(who_was_put_in_front_comes_before_others_of_its_tenant_and_priority_only) {
  FairQueue queue;
  queue.push_back(item(1, 1));
  queue.push_back(item(2, 1, 5));
  queue.push_front(item(3, 1));
  check_order(queue, {2, 3, 1});
}

BOOST_AUTO_TEST_CASE(a_higher_priority_always_goes_first) {
  FairQueue queue;
  queue.push_back(item(1, 1, -1));
  queue.push_back(item(2, 1, 7));
  queue.push_back(item(3, 2, 0));
  queue.push_back(item(4, 2, 7));
  queue.charge(TenantId(2), 1'000'000);  // however much its tenant has had
  check_order(queue, {2, 4, 3, 1});
}

BOOST_AUTO_TEST_CASE(the_tenant_served_least_goes_first) {
  FairQueue queue;
  for (uint64_t id : {1, 2}) queue.push_back(item(id, 1));
  for (uint64_t id : {3, 4}) queue.push_back(item(id, 2));
  queue.charge(TenantId(1), 10);
  BOOST_TEST(pop(queue) == 3u);
  queue.charge(TenantId(2), 11);
  BOOST_TEST(pop(queue) == 1u);
  queue.charge(TenantId(1), 2);
  check_order(queue, {4, 2});
}

BOOST_AUTO_TEST_CASE(service_counts_by_weight) {
  FairQueue queue;
  queue.set_weight(TenantId(2), 3);
  queue.push_back(item(1, 1));
  queue.push_back(item(2, 2));
  queue.charge(TenantId(1), 10);
  queue.charge(TenantId(2), 29);
  BOOST_TEST(queue.front()->id.value == 2u);
  queue.charge(TenantId(2), 2);
  BOOST_TEST(queue.front()->id.value == 1u);
}

// Before anything of theirs was charged (it will be when they are sent), they still take turns.
BOOST_AUTO_TEST_CASE(tenants_served_alike_take_turns) {
  FairQueue queue;
  for (uint64_t id : {1, 2, 3}) queue.push_back(item(id, 1));
  for (uint64_t id : {4, 5, 6}) queue.push_back(item(id, 2));
  check_order(queue, {1, 4, 2, 5, 3, 6});
}

BOOST_AUTO_TEST_CASE(erasing_leaves_the_others_in_order) {
  FairQueue queue;
  for (uint64_t id : {1, 2, 3}) queue.push_back(item(id, 1));
  queue.push_back(item(4, 2, 3));
  BOOST_TEST(queue.erase(SequenceId(2)));
  BOOST_TEST(!queue.erase(SequenceId(2)));
  BOOST_TEST(queue.erase(SequenceId(4)));
  BOOST_TEST(queue.size() == 2u);
  check_order(queue, {1, 3});
}

BOOST_AUTO_TEST_CASE(who_idled_is_lifted_to_the_least_of_the_active) {
  FairQueue queue;
  queue.push_back(item(1, 1));
  queue.push_back(item(2, 2));
  queue.charge(TenantId(1), 1000);
  queue.charge(TenantId(2), 700);
  queue.push_back(item(3, 3));  // has had nothing yet
  BOOST_TEST(queue.virtual_tokens(TenantId(3)) == 700);
  queue.charge(TenantId(3), 1);
  check_order(queue, {2, 3, 1});
}

BOOST_AUTO_TEST_CASE(running_counts_as_active) {
  FairQueue queue;
  queue.add_running(TenantId(1));
  queue.charge(TenantId(1), 1000);
  queue.push_back(item(1, 2));
  BOOST_TEST(queue.virtual_tokens(TenantId(2)) == 1000);
  queue.remove_running(TenantId(1));
  BOOST_TEST(queue.erase(SequenceId(1)));
  queue.add_running(TenantId(1));  // had more than its share: that stays
  queue.charge(TenantId(1), 500);
  queue.push_back(item(2, 2));
  BOOST_TEST(queue.virtual_tokens(TenantId(2)) == 1500);
}

BOOST_AUTO_TEST_CASE(nobody_saves_up_credit_while_all_are_idle) {
  FairQueue queue;
  queue.add_running(TenantId(1));
  queue.charge(TenantId(1), 1'000'000);
  queue.remove_running(TenantId(1));
  queue.push_back(item(1, 2));
  BOOST_TEST(queue.virtual_tokens(TenantId(2)) == 1'000'000);
  queue.charge(TenantId(2), 1);
  queue.push_back(item(2, 1));
  BOOST_TEST(queue.virtual_tokens(TenantId(1)) == 1'000'001);
}

BOOST_AUTO_TEST_CASE(debt_is_not_forgiven_by_going_idle) {
  FairQueue queue;
  queue.add_running(TenantId(2));
  queue.add_running(TenantId(1));
  queue.charge(TenantId(1), 1000);
  queue.remove_running(TenantId(1));
  queue.charge(TenantId(2), 400);
  queue.push_back(item(1, 1));
  queue.push_back(item(2, 2));
  BOOST_TEST(queue.virtual_tokens(TenantId(1)) == 1000);
  BOOST_TEST(queue.front()->id.value == 2u);
}

BOOST_AUTO_TEST_CASE(a_weight_set_later_counts_from_then_on) {
  FairQueue queue;
  queue.add_running(TenantId(1));
  queue.charge(TenantId(1), 100);
  queue.set_weight(TenantId(1), 4);
  queue.charge(TenantId(1), 100);
  BOOST_TEST(queue.virtual_tokens(TenantId(1)) == 125);
}

// A server that serves one at a time, saturated by everybody at random moments: over any long
// stretch each tenant gets its weight's share, within 5 %.
BOOST_AUTO_TEST_CASE(shares_follow_the_weights) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    FairQueue queue;
    const uint32_t num_tenants = 2 + random() % 6;
    double total_weight = 0;
    std::vector<double> weights(num_tenants);
    std::vector<int64_t> served(num_tenants);
    for (uint32_t t = 0; t < num_tenants; ++t) {
      weights[t] = 1 + random() % 8;
      total_weight += weights[t];
      queue.set_weight(TenantId(t), weights[t]);
    }
    uint64_t last_id = 0;
    std::vector<int> num_waiting(num_tenants);
    const auto arrive = [&](uint32_t tenant) {
      queue.push_back(item(++last_id, tenant));
      ++num_waiting[tenant];
    };
    int64_t total = 0;
    for (int step = 0; step < 20'000; ++step) {
      for (uint32_t t = 0; t < num_tenants; ++t)  // bursts, and always some
        while (num_waiting[t] < 2 || random() % 16 == 0) arrive(t);
      const uint32_t tenant = queue.front()->tenant.value;
      queue.pop_front();
      --num_waiting[tenant];
      const int64_t tokens = 1 + random() % 300;
      queue.charge(TenantId(tenant), tokens);
      served[tenant] += tokens;
      total += tokens;
    }
    for (uint32_t t = 0; t < num_tenants; ++t) {
      const double share = static_cast<double>(served[t]) / static_cast<double>(total);
      BOOST_TEST_CONTEXT("seed " << seed << ", tenant " << t)
      BOOST_TEST(std::abs(share / (weights[t] / total_weight) - 1) < 0.05);
    }
  }
}

// It starts each time where the other one is, and the other one's turn is first: never more than
// one serving apart.
BOOST_AUTO_TEST_CASE(who_comes_and_goes_gains_nothing_by_it) {
  std::mt19937 random(11);
  FairQueue queue;
  uint64_t last_id = 0;
  int64_t steady = 0;
  int64_t flapping = 0;
  for (int round = 0; round < 400; ++round) {
    const int idle_servings = static_cast<int>(random() % 20);
    const int busy_servings = 1 + static_cast<int>(random() % 20);
    for (int i = 0; i < idle_servings; ++i) {
      queue.push_back(item(++last_id, 1));
      BOOST_TEST_REQUIRE(queue.front()->tenant.value == 1u);
      queue.pop_front();
      queue.charge(TenantId(1), 100);
    }
    queue.push_back(item(++last_id, 1));
    queue.push_back(item(++last_id, 2));
    for (int i = 0; i < busy_servings; ++i) {
      const uint32_t tenant = queue.front()->tenant.value;
      queue.push_back(item(++last_id, tenant));
      queue.pop_front();
      queue.charge(TenantId(tenant), 100);
      (tenant == 1 ? steady : flapping) += 100;
    }
    while (queue.size() > 0) queue.pop_front();
  }
  BOOST_TEST(flapping <= steady);
  BOOST_TEST(steady - flapping <= 400 * 100);
}

/// What the queue should do, by looking at everything each time.
class NaiveQueue {
 public:
  void push(const FairQueue::Item& item, bool in_front) {
    enter(item.tenant);
    auto& items = items_[{-item.priority, item.tenant}];
    items.insert(in_front ? items.begin() : items.end(), item);
    ++tenants_[item.tenant].active;
  }
  bool erase(SequenceId id) {
    for (auto& [key, items] : items_) {
      const auto is_it = [&](const FairQueue::Item& other) { return other.id == id; };
      const auto found = std::find_if(items.begin(), items.end(), is_it);
      if (found == items.end()) continue;
      items.erase(found);
      leave(key.second);
      return true;
    }
    return false;
  }
  std::optional<FairQueue::Item> front() const {
    const FairQueue::Item* best = nullptr;
    for (const auto& [key, items] : items_) {
      if (items.empty()) continue;
      if (!best || key_of(items.front()) < key_of(*best)) best = &items.front();
    }
    return best ? std::optional(*best) : std::nullopt;
  }
  void pop_front() {
    const FairQueue::Item item = *front();
    items_[{-item.priority, item.tenant}].pop_front();
    tenants_[item.tenant].turn = ++last_turn_;
    leave(item.tenant);
  }
  void charge(TenantId tenant, int64_t num_tokens) {
    tenants_[tenant].served += static_cast<double>(num_tokens) / tenants_[tenant].weight;
  }
  void set_weight(TenantId tenant, double weight) { tenants_[tenant].weight = weight; }
  void add_running(TenantId tenant) {
    enter(tenant);
    ++tenants_[tenant].active;
  }
  void leave(TenantId id) {
    Tenant& tenant = tenants_[id];
    --tenant.active;
    const bool is_any = std::any_of(tenants_.begin(), tenants_.end(),
                                    [](const auto& entry) { return entry.second.active > 0; });
    if (!is_any) lift_ = std::max(lift_, tenant.served);
  }

 private:
  struct Tenant {
    double weight = 1;
    double served = 0;
    uint64_t turn = 0;
    int active = 0;
  };
  std::tuple<int32_t, double, uint64_t, TenantId> key_of(const FairQueue::Item& item) const {
    const Tenant& tenant = tenants_.at(item.tenant);
    return {-item.priority, tenant.served, tenant.turn, item.tenant};
  }
  void enter(TenantId id) {
    Tenant& tenant = tenants_[id];
    if (tenant.active > 0) return;
    double least = INFINITY;
    for (const auto& [other_id, other] : tenants_)
      if (other.active > 0) least = std::min(least, other.served);
    if (std::isfinite(least)) lift_ = std::max(lift_, least);
    tenant.served = std::max(tenant.served, lift_);
    tenant.turn = ++last_turn_;
  }

  std::map<TenantId, Tenant> tenants_;
  std::map<std::pair<int32_t, TenantId>, std::deque<FairQueue::Item>> items_;
  double lift_ = 0;
  uint64_t last_turn_ = 0;
};

BOOST_AUTO_TEST_CASE(stays_equal_to_its_model) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(seed);
    FairQueue queue;
    NaiveQueue model;
    std::vector<TenantId> running;
    uint64_t last_id = 0;
    for (int step = 0; step < 3000; ++step) {
      const TenantId tenant(random() % 6);
      const auto priority = static_cast<int32_t>(random() % 3) - 1;
      switch (random() % 8) {
        case 0:
        case 1: {
          const bool in_front = random() % 4 == 0;
          const FairQueue::Item added{SequenceId(++last_id), tenant, priority};
          in_front ? queue.push_front(added) : queue.push_back(added);
          model.push(added, in_front);
          break;
        }
        case 2:
        case 3:
          if (queue.size() == 0) break;
          queue.pop_front();
          model.pop_front();
          break;
        case 4: {
          const int64_t tokens = random() % 50;
          queue.charge(tenant, tokens);
          model.charge(tenant, tokens);
          break;
        }
        case 5: {
          const SequenceId id(1 + random() % (last_id + 1));
          BOOST_TEST_REQUIRE(queue.erase(id) == model.erase(id));
          break;
        }
        case 6:
          if (running.size() < 4) {
            queue.add_running(tenant);
            model.add_running(tenant);
            running.push_back(tenant);
          } else {
            queue.remove_running(running.front());
            model.leave(running.front());
            running.erase(running.begin());
          }
          break;
        default: {
          if (random() % 10 != 0) break;
          const double weight = 1 + random() % 3;
          queue.set_weight(tenant, weight);
          model.set_weight(tenant, weight);
        }
      }
      const auto ours = queue.front();
      const auto expected = model.front();
      BOOST_TEST_REQUIRE(ours.has_value() == expected.has_value());
      if (ours) BOOST_TEST_REQUIRE((ours->id == expected->id), "seed " << seed << " step " << step);
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::graph
