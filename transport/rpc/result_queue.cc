#include "transport/rpc/result_queue.h"

#include <iterator>

#include "transport/rpc/rank_server.h"

namespace chainpump::transport::rpc {
namespace {

template <typename T>
void append(std::vector<T>& all, std::vector<T>& more) {
  if (all.empty()) return all.swap(more);
  all.insert(all.end(), std::move_iterator(more.begin()), std::move_iterator(more.end()));
}

}  // namespace

Status ResultQueue::push(LaneResults results) {
  if (results.empty()) return ok_status();
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return make_error(ErrorCode::disconnected, "nobody takes these results any more");
    const size_t num_more = results.tokens.size() + results.scores.size();
    if (num_more > results_max_ - num_queued())
      return make_error(ErrorCode::overloaded, "{} results are queued and {} more do not fit",
                        num_queued(), num_more);
    // A client that never reads, and has its requests refused one after the other.
    if (results.ends.size() > results_max_ - std::min(results_max_, queued_.ends.size())) {
      closed_ = true;
      queued_ = LaneResults{};
      return make_error(ErrorCode::disconnected, "the client does not take its results");
    }
    append(queued_.tokens, results.tokens);
    append(queued_.scores, results.scores);
    append(queued_.ends, results.ends);
    queued_.stats = results.stats;  // the latest count
    if (std::exchange(awake_, true)) return ok_status();
  }
  wake_();
  return ok_status();
}

size_t ResultQueue::room() const {
  const std::lock_guard lock(mutex_);
  return closed_ ? 0 : results_max_ - num_queued();
}

LaneResults ResultQueue::take() {
  const std::lock_guard lock(mutex_);
  if (queued_.empty()) awake_ = false;
  return std::exchange(queued_, LaneResults{});
}

void ResultQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  queued_ = LaneResults{};
}

Status ResultSinkHandle::push(LaneResults results) {
  CHECK(queue_ != nullptr);
  return queue_->push(std::move(results));
}
size_t ResultSinkHandle::push_room() const { return queue_ ? queue_->room() : 0; }

}  // namespace chainpump::transport::rpc
