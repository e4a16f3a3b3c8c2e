#include "transport/rpc/result_queue.h"

#include <iterator>

#include "transport/rpc/rank_server.h"

namespace chainpump::transport::rpc {

template <typename T>
Status ResultQueue::add(std::vector<T> Batch::*list, std::vector<T> results) {
  if (results.empty()) return ok_status();
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return make_error(ErrorCode::disconnected, "nobody takes these results any more");
    const size_t queued = queued_.tokens.size() + queued_.scores.size();
    if (results.size() > results_max_ - queued)
      return make_error(ErrorCode::overloaded, "{} results are queued and {} more do not fit",
                        queued, results.size());
    auto& target = queued_.*list;
    target.insert(target.end(), std::move_iterator(results.begin()),
                  std::move_iterator(results.end()));
    if (std::exchange(awake_, true)) return ok_status();
  }
  wake_();
  return ok_status();
}

Status ResultQueue::push(std::vector<TokenResult> tokens) {
  return add(&Batch::tokens, std::move(tokens));
}
Status ResultQueue::push(std::vector<ScoreResult> scores) {
  return add(&Batch::scores, std::move(scores));
}

size_t ResultQueue::room() const {
  const std::lock_guard lock(mutex_);
  return closed_ ? 0 : results_max_ - queued_.tokens.size() - queued_.scores.size();
}

ResultQueue::Batch ResultQueue::take() {
  const std::lock_guard lock(mutex_);
  if (queued_.empty()) awake_ = false;
  return std::exchange(queued_, Batch{});
}

void ResultQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  queued_ = Batch{};
}

Status ResultSinkHandle::push(std::vector<TokenResult> tokens) {
  CHECK(queue_ != nullptr);
  return queue_->push(std::move(tokens));
}
Status ResultSinkHandle::push(std::vector<ScoreResult> scores) {
  CHECK(queue_ != nullptr);
  return queue_->push(std::move(scores));
}
size_t ResultSinkHandle::push_room() const { return queue_ ? queue_->room() : 0; }

}  // namespace chainpump::transport::rpc
