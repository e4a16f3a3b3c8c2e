#include "cli/chaos_load.h"

#include <algorithm>
#include <atomic>

#include "base/thread.h"

namespace chainpump::cli {
namespace {

constexpr size_t kCalmClients = 16;
constexpr Duration kAfterRefusal = std::chrono::milliseconds(200);

/// Asks, and takes what comes until the end.
template <typename Take>
Status ask(gateway::Service& service, const gateway::GenerateRequest& request, UnderWay& under_way,
           Take&& take) {
  ASSIGN_OR_RETURN(const auto generating, service.generate(request));
  const auto end = under_way.collect(*generating, take);
  RETURN_IF_ERROR(end);
  return ok_status();
}

Result<CalmAnswer> answer_one(gateway::Service& service, const gateway::GenerateRequest& request,
                              UnderWay& under_way) {
  Receipt receipt(request.num_choices);
  RETURN_IF_ERROR(ask(service, request, under_way, [&receipt](const gateway::Update& update) {
    for (const gateway::Delta& delta : update.deltas) receipt.add(delta, TimePoint{});
  }));
  return receipt.answer();
}

}  // namespace

Result<std::vector<CalmRequest>> answer_calmly(gateway::Service& service,
                                               std::vector<gateway::GenerateRequest> requests,
                                               UnderWay& under_way) {
  std::vector<CalmRequest> pool;
  for (gateway::GenerateRequest& request : requests) pool.push_back({std::move(request), {}});
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::optional<Error> failure;
  const auto be_client = [&] {
    for (size_t i = next++; i < pool.size(); i = next++) {
      Result<CalmAnswer> answer = answer_one(service, pool[i].request, under_way);
      if (answer.ok()) {
        pool[i].answer = std::move(*answer);
        continue;
      }
      const std::lock_guard lock(mutex);
      if (!failure) failure = answer.error();
      next = pool.size();
    }
  };
  std::vector<std::thread> clients;
  for (size_t i = 0; i < std::min(pool.size(), kCalmClients); ++i) {
    Result<std::thread> client = start_thread("a client", be_client);
    if (client.ok()) {
      clients.push_back(std::move(*client));
      continue;
    }
    const std::lock_guard lock(mutex);
    failure = client.error();
    break;
  }
  for (std::thread& client : clients) client.join();
  if (failure) return *failure;
  return pool;
}

size_t LiveRequest::num_tokens() const {
  const std::lock_guard lock(mutex_);
  return receipt_.num_tokens();
}

bool LiveRequest::has_ended() const {
  const std::lock_guard lock(mutex_);
  return end_.has_value();
}

void LiveRequest::add(const gateway::Update& update, TimePoint at) {
  const std::lock_guard lock(mutex_);
  for (const gateway::Delta& delta : update.deltas) receipt_.add(delta, at);
}

void LiveRequest::set_end(Status end) {
  const std::lock_guard lock(mutex_);
  end_ = std::move(end);
}

ChaosLoad::ChaosLoad(const std::vector<CalmRequest>& pool, gateway::Service& service,
                     UnderWay& under_way, uint64_t first)
    : pool_(pool), service_(service), under_way_(under_way), next_(first) {}

ChaosLoad::~ChaosLoad() {
  close();
  for (std::thread& client : clients_) client.join();
}

Status ChaosLoad::start(size_t num_clients) {
  for (size_t i = 0; i < num_clients; ++i) {
    ASSIGN_OR_RETURN(std::thread client, start_thread("a client", [this] { be_client(); }));
    clients_.push_back(std::move(client));
  }
  return ok_status();
}

void ChaosLoad::allow(uint64_t count) {
  const std::lock_guard lock(mutex_);
  num_allowed_ = count;
  changed_.notify_all();
}

void ChaosLoad::close() {
  const std::lock_guard lock(mutex_);
  closing_ = true;
  changed_.notify_all();
}

ChaosLoad::Requests ChaosLoad::unfinished() const {
  const std::lock_guard lock(mutex_);
  return unfinished_;
}

ChaosLoad::Requests ChaosLoad::take_ended() {
  const std::lock_guard lock(mutex_);
  return std::exchange(ended_, {});
}

std::optional<Error> ChaosLoad::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::shared_ptr<LiveRequest> ChaosLoad::begin_next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closing_ || num_allowed_ > 0; });
  if (closing_ || failure_ || under_way_.error()) return nullptr;
  --num_allowed_;
  const uint64_t number = next_++;
  auto request = std::make_shared<LiveRequest>(number, pool_[number % pool_.size()]);
  unfinished_.push_back(request);
  return request;
}

Status ChaosLoad::send(LiveRequest& request) {
  return ask(
      service_, request.asked().request, under_way_,
      [&request](const gateway::Update& update) { request.add(update, steady_clock().now()); });
}

void ChaosLoad::be_client() {
  while (const std::shared_ptr<LiveRequest> request = begin_next()) {
    Status end = send(*request);
    const bool has_failed = !end.ok();
    const bool is_lost = has_failed && end.error().code == ErrorCode::disconnected;
    request->set_end(end);
    {
      const std::lock_guard lock(mutex_);
      std::erase(unfinished_, request);
      ended_.push_back(request);
      // A request may be lost without the connection.
      if (is_lost && !service_.wait_ready(Duration(0)).ok() && !failure_) failure_ = end.error();
    }
    if (has_failed && under_way_.is_stopped_within(kAfterRefusal)) return;
  }
}

}  // namespace chainpump::cli
