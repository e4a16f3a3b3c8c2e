#include "actors/succession.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/store/leadership.h"
#include "base/thread.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr std::chrono::milliseconds kLookEvery{100};
constexpr Duration kCallMax = std::chrono::seconds(1);
constexpr Duration kAskMax =
    std::chrono::seconds(3);  // who else there is; who cannot know leaves the ranks
constexpr Duration kElectedMax = std::chrono::seconds(10);  // of one that retires

}  // namespace

Result<HttpServers> servers_of(const rpc::StoreSpec& store) {
  ASSIGN_OR_RETURN(EtcdAddress address, parse_etcd_address(store.address));
  HttpServers servers{.addresses = std::move(address.servers),
                      .authority = store.authority,
                      .certificate = store.certificate,
                      .key = store.key};
  RETURN_IF_ERROR(check(servers));
  return servers;
}

EtcdKeys keys_of(const rpc::StoreSpec& store) { return {store.prefix}; }

struct Succession::Impl {
  Impl(HttpServers given_servers, EtcdKeys given_keys, Candidate given_self,
       SuccessionObserver watches)
      : servers(std::move(given_servers)),
        keys(std::move(given_keys)),
        self(std::move(given_self)),
        observer(std::move(watches)) {}

  Status start() {
    ASSIGN_OR_RETURN(client, EtcdClient::create(servers));
    ASSIGN_OR_RETURN(
        leadership,
        Leadership::start(
            {.servers = servers, .keys = keys, .self = self},
            {.on_lead = [this](Fence granted) { change([&] { fence = std::move(granted); }); },
             .on_step_down = observer.on_step_down,
             .on_other = observer.on_other,
             .on_store =
                 [this](const std::string& why) {
                   observer.on_notice(why.empty() ? "the store can be reached again"
                                                  : "the store cannot be reached: " + why);
                 }}));
    ASSIGN_OR_RETURN(thread, start_thread("the thread that stands by", [this] { run(); }));
    return ok_status();
  }

  template <typename F>
  void change(F what) {
    const std::lock_guard lock(mutex);
    what();
    changed.notify_all();
  }

  // ------------------------------------------------------------------------------ its own thread
  void run() {
    std::unique_lock lock(mutex);
    while (!is_ending) {
      if (fence && !notes_key) {
        const Fence term = *fence;
        lock.unlock();
        lead(term);
      } else if (retiring && is_decided()) {
        const auto last = std::exchange(retiring, std::nullopt);
        const bool takes_down = is_last && notes_key;
        lock.unlock();
        if (!takes_down) {
          last->let_go();
          leadership.reset();
        }
        last->answer(takes_down);
      } else if (notes && notes_key) {
        const LaneNotes latest = *std::exchange(notes, std::nullopt);
        lock.unlock();
        publish(latest);
      } else {
        const bool stands_by = !notes_key;
        const bool must_ask = retiring && !is_asked;
        lock.unlock();
        if (must_ask) ask_others();
        if (stands_by) follow();
        lock.lock();
        if (must_ask) continue;
        const auto is_woken = [&] {
          return is_ending || (fence && !notes_key) || (notes && notes_key) ||
                 (retiring && (!is_asked || is_decided()));
        };
        if (stands_by || retiring) {
          changed.wait_for(lock, kLookEvery, is_woken);
        } else {
          changed.wait(lock, is_woken);
        }
        continue;
      }
      lock.lock();
    }
  }

  /// Whether it is known how to retire. Under the lock.
  bool is_decided() const {
    return is_asked && (!is_last || notes_key || has_ended || steady_clock().now() >= elected_by);
  }

  /// Not counted by others any more, it counts them.
  void ask_others() {
    const TimePoint deadline = steady_clock().now() + kAskMax;
    const std::string own = candidate_key(keys, self);
    const auto gone = client->transact({{}, {{own, {}}}, {}}, deadline);
    const auto left = gone.ok() ? client->list(keys.candidates(), deadline)
                                : Result<std::map<std::string, EtcdValue>>(gone.error());
    change([&] {
      is_asked = true;
      // Who cannot know leaves the ranks to those who can.
      is_last = left.ok() && left->empty();
      elected_by = steady_clock().now() + kElectedMax;
    });
  }

  void follow() {
    if (has_ended) return;
    const Result<EtcdValue> value = client->get(keys.lanes(), steady_clock().now() + kCallMax);
    if (!value.ok() || !is_same(*value)) return;
    if (value->mod_revision == seen) return;
    seen = value->mod_revision;
    const Result<LaneNotes> read = lane_notes_from_json(value->text);
    if (read.ok()) return observer.on_notes(*read);
    end(read.error());
  }

  /// The notes are made once in the life of a deployment, and rewritten.
  bool is_same(const EtcdValue& value) {
    if (since == 0) since = value.create_revision;
    if (value.create_revision == since) return since != 0;
    end(make_error(ErrorCode::disconnected,
                   "the deployment that this coordinator stood by for "
                   "has ended"));
    return false;
  }

  void end(Error why) {
    const bool is_news = !std::exchange(has_ended, true);
    if (is_news && !is_retiring()) observer.on_ended(std::move(why));
  }

  bool is_retiring() {
    const std::lock_guard lock(mutex);
    return retiring.has_value();
  }

  void lead(const Fence& term) {
    auto own = EtcdClient::create(servers);
    auto key =
        own.ok() ? std::make_unique<FencedKey>(*std::move(own), term, keys.lanes()) : nullptr;
    const Result<EtcdValue> value = client->get(keys.lanes(), steady_clock().now() + kCallMax);
    if (!key || !key->read().ok() || !value.ok())
      return observer.on_step_down("the store cannot be read");
    // Gateways here know lanes of a deployment that is no more.
    if (since != 0 && !is_same(*value)) {
      if (!is_retiring()) return observer.on_step_down("its deployment has ended");
      leadership.reset();
      return change([&] { fence.reset(); });
    }
    change([&] { notes_key = std::move(key); });
    observer.on_notice(fmt::format("this coordinator leads, in term {}", term.term));
    observer.on_lead(term);
  }

  void publish(const LaneNotes& latest) {
    const Status written = notes_key->write(to_json_text(latest));
    if (!written.ok()) observer.on_step_down(written.error().message);
  }

  struct Retiring {
    std::function<void()> let_go;
    std::function<void(bool)> answer;
  };

  const HttpServers servers;
  const EtcdKeys keys;
  const Candidate self;
  const SuccessionObserver observer;
  std::unique_ptr<EtcdClient> client;  // these on its own thread
  int64_t since = 0, seen = 0;         // revisions of the notes: when they were made, and read
  bool has_ended = false;
  TimePoint elected_by;

  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Fence> fence;
  std::unique_ptr<FencedKey> notes_key;  // it leads
  std::optional<LaneNotes> notes;        // to be published
  std::optional<Retiring> retiring;
  bool is_asked = false;
  bool is_last = false;
  bool is_ending = false;
  std::unique_ptr<Leadership> leadership;
  std::thread thread;
};

Succession::Succession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Status Succession::start(std::unique_ptr<Succession>& made, const rpc::StoreSpec& store,
                         const Candidate& self, SuccessionObserver observer) {
  ASSIGN_OR_RETURN(HttpServers servers, servers_of(store));
  made.reset(new Succession(
      std::make_unique<Impl>(std::move(servers), keys_of(store), self, std::move(observer))));
  return made->impl_->start();
}

Succession::~Succession() {
  impl_->change([&] { impl_->is_ending = true; });
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->leadership.reset();  // its threads use the rest
}

void Succession::tell(LaneNotes notes) {
  impl_->change([&] { impl_->notes = std::move(notes); });
}

void Succession::retire(std::function<void()> let_go, std::function<void(bool)> answer) {
  impl_->change([&] { impl_->retiring = Impl::Retiring{std::move(let_go), std::move(answer)}; });
}

}  // namespace chainpump::actors
