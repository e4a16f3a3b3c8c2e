#include "actors/store/leadership.h"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/thread.h"
#include "graph/election.h"

namespace chainpump::actors {
namespace {

using graph::Election;
using Json = nlohmann::json;

constexpr Duration kCallMax = std::chrono::milliseconds(1300);
constexpr Duration kRevokeMax = std::chrono::milliseconds(500);

std::string to_text(const Candidate& candidate) {
  return Json{{"name", candidate.name}, {"pid", candidate.pid}}.dump();
}

std::optional<Candidate> from_text(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string() ||
      !json.contains("pid") || !json["pid"].is_number_integer())
    return std::nullopt;
  return Candidate{json["name"].get<std::string>(), json["pid"].get<int32_t>()};
}

/// Calls to the store, one after the other.
class Caller {
 public:
  Status start(const char* purpose, const HttpServers& servers) {
    ASSIGN_OR_RETURN(client_, EtcdClient::create(servers));
    ASSIGN_OR_RETURN(thread_, start_thread(purpose, [this] { run(); }));
    return ok_status();
  }
  ~Caller() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }
  using Call = std::function<void(EtcdClient&)>;
  void call(Call what) {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(what));
    changed_.notify_all();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return is_ending_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const Call next = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      next(*client_);
      lock.lock();
    }
  }

  std::unique_ptr<EtcdClient> client_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Call> waiting_;
  bool is_ending_ = false;
  std::thread thread_;
};

}  // namespace

struct Leadership::Impl {
  Impl(LeadershipOptions given, LeadershipObserver watches)
      : options(std::move(given)), observer(std::move(watches)) {}

  // ------------------------------------------------------------------ the thread of the election
  void run() {
    std::unique_lock lock(mutex);
    act(election.start(steady_clock().now()), lock);
    while (!is_ending) {
      if (!events.empty()) {
        const Election::Event event = std::move(events.front());
        events.pop_front();
        act(election.step(event, steady_clock().now()), lock);
        continue;
      }
      act(election.on_time(steady_clock().now()), lock);
      const auto next = election.next_deadline();
      const auto is_woken = [&] { return is_ending || !events.empty(); };
      if (next) {
        changed.wait_for(lock, *next - steady_clock().now(), is_woken);
      } else {
        changed.wait(lock, is_woken);
      }
    }
  }

  void act(const std::vector<Election::Action>& actions, std::unique_lock<std::mutex>& lock) {
    *until = election.until().since_epoch.count();
    for (const Election::Action& action : actions) {
      lock.unlock();
      carry_out(action);
      lock.lock();
    }
  }

  void carry_out(const Election::Action& action) {
    switch (action.kind) {
      case Election::ActionKind::grant:
        return leases.call([this](EtcdClient& client) { grant(client); });
      case Election::ActionKind::renew:
        return leases.call(
            [this, lease = action.lease](EtcdClient& client) { renew(client, lease); });
      case Election::ActionKind::campaign:
        return campaigns.call(
            [this, lease = action.lease](EtcdClient& client) { campaign(client, lease); });
      case Election::ActionKind::lead:
        return observer.on_lead({options.keys, action.term,
                                 [until = until] { return TimePoint{Duration(until->load())}; }});
      case Election::ActionKind::step_down:
        return observer.on_step_down(action.why);
    }
  }

  // -------------------------------------------------------------------------- the store's threads
  void tell(Election::Event event) {
    const std::lock_guard lock(mutex);
    events.push_back(std::move(event));
    changed.notify_all();
  }

  void tell_store(const Status& answered) {
    const std::string why = answered.ok() ? "" : answered.error().message;
    if (answered.ok() == told_store_ok.exchange(answered.ok())) return;
    if (observer.on_store) observer.on_store(why);
  }

  void grant(EtcdClient& client) {
    const TimePoint asked = steady_clock().now();
    const Result<EtcdLease> lease = client.grant(options.lease, asked + kCallMax);
    Status done = lease.ok() ? ok_status() : Status(lease.error());
    if (lease.ok()) {
      granted = lease->id;
      const std::string key = candidate_key(options.keys, options.self);
      const auto put = client.transact(
          {.compare = {}, .change = {{key, to_text(options.self), lease->id}}, .look = {}},
          asked + kCallMax);
      if (!put.ok()) done = put.error();
    }
    tell_store(done);
    if (!done.ok()) return tell(Election::GrantFailed{});
    tell(Election::Granted{lease->id, lease->ttl, asked});
  }

  void renew(EtcdClient& client, int64_t lease) {
    const TimePoint asked = steady_clock().now();
    const Result<Duration> ttl = client.renew(lease, asked + kCallMax);
    tell_store(ttl.ok() ? ok_status() : Status(ttl.error()));
    if (!ttl.ok()) return tell(Election::RenewFailed{});
    tell(Election::Renewed{lease, *ttl, asked});
  }

  void campaign(EtcdClient& client, int64_t lease) {
    const std::string key = options.keys.leader();
    const Result<EtcdOutcome> outcome =
        client.transact({.compare = {{key, EtcdCompare::What::create_revision, 0}},
                         .change = {{key, to_text(options.self), lease}},
                         .look = {key}},
                        steady_clock().now() + kCallMax);
    if (!outcome.ok() && outcome.error().code == ErrorCode::not_found)
      return tell(Election::NoLease{lease});
    if (!outcome.ok()) return tell(Election::CampaignFailed{});
    if (outcome->succeeded) return tell(Election::Won{lease, outcome->revision});
    const EtcdValue& leader = outcome->looked[0];
    // An attempt that nobody had answered may have been carried out.
    if (leader.create_revision != 0 && leader.lease == lease)
      return tell(Election::Won{lease, leader.create_revision});
    if (const auto who = from_text(leader.text);
        who && leader.create_revision != std::exchange(other_since, leader.create_revision) &&
        observer.on_other)
      observer.on_other(*who);
    tell(Election::Lost{lease});
  }

  const LeadershipOptions options;
  const LeadershipObserver observer;
  const std::shared_ptr<std::atomic<int64_t>> until = std::make_shared<std::atomic<int64_t>>(0);
  std::atomic<int64_t> granted{0};  // the last
  std::atomic<bool> told_store_ok{true};
  int64_t other_since = 0;  // the campaigns' thread
  std::mutex mutex;
  std::condition_variable changed;
  Election election{graph::ElectionLimits()};
  std::deque<Election::Event> events;
  bool is_ending = false;
  std::thread thread;
  Caller leases;  // these end first
  Caller campaigns;
};

Leadership::Leadership(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Leadership>> Leadership::start(const LeadershipOptions& options,
                                                      LeadershipObserver observer) {
  auto impl = std::make_unique<Impl>(options, std::move(observer));
  RETURN_IF_ERROR(impl->leases.start("the thread that keeps a lease", options.servers));
  RETURN_IF_ERROR(impl->campaigns.start("the thread that stands for election", options.servers));
  ASSIGN_OR_RETURN(impl->thread,
                   start_thread("the thread of the election", [raw = impl.get()] { raw->run(); }));
  return std::unique_ptr<Leadership>(new Leadership(std::move(impl)));
}

Leadership::~Leadership() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->is_ending = true;
    impl_->changed.notify_all();
  }
  impl_->thread.join();
  impl_->leases.call([impl = impl_.get()](EtcdClient& client) {
    if (const int64_t lease = impl->granted)
      (void)client.revoke(lease, steady_clock().now() + kRevokeMax);  // else it runs out
  });
}

Result<Candidates> find_candidates(EtcdClient& client, const EtcdKeys& keys, TimePoint deadline) {
  Candidates found;
  ASSIGN_OR_RETURN(const auto all, client.list(keys.candidates(), deadline));
  for (const auto& [key, value] : all)
    if (auto candidate = from_text(value.text)) found.all.push_back(*std::move(candidate));
  ASSIGN_OR_RETURN(const EtcdValue leader, client.get(keys.leader(), deadline));
  found.leader = from_text(leader.text);
  return found;
}

}  // namespace chainpump::actors
