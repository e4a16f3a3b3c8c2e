#include "transport/rpc/result_pump.h"

#include <algorithm>

#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {
namespace {

constexpr size_t kResultsPerCall = 4096;  // of each kind

template <typename T>
std::vector<T> part_of(const std::vector<T>& all, size_t first) {
  const size_t begin = std::min(first, all.size());
  const size_t end = std::min(all.size(), begin + kResultsPerCall);
  return std::vector<T>(all.begin() + static_cast<ptrdiff_t>(begin),
                        all.begin() + static_cast<ptrdiff_t>(end));
}

void write_results(schema::LaneResults::Builder out, const LaneResults& in) {
  write_list(out.initTokens(static_cast<uint32_t>(in.tokens.size())), in.tokens);
  write_list(out.initScores(static_cast<uint32_t>(in.scores.size())), in.scores);
  write_list(out.initEnds(static_cast<uint32_t>(in.ends.size())), in.ends);
  write(out.initStats(), in.stats);
}

}  // namespace

void ResultPump::wake() {
  if (running_) return;
  running_ = true;
  task_ = drain().eagerlyEvaluate([this](kj::Exception&&) {
    queue_->close();  // the client's sink is gone
    running_ = false;
  });
}

kj::Promise<void> ResultPump::drain() {
  auto batch = std::make_shared<LaneResults>(queue_->take());
  if (batch->empty()) {
    // At once: the next push wakes this pump again, and must not find it running.
    running_ = false;
    return kj::READY_NOW;
  }
  return send(batch, 0).then([this] { return drain(); });
}

// In calls of bounded size. The ends go with the last, since nothing of a request follows its end.
kj::Promise<void> ResultPump::send(const std::shared_ptr<LaneResults>& batch, size_t first) {
  auto request = sink_.resultsRequest();
  const size_t next = first + kResultsPerCall;
  const bool is_last = next >= std::max(batch->tokens.size(), batch->scores.size());
  if (first == 0 && is_last) {
    write_results(request.initResults(), *batch);
    return request.send();
  }
  write_results(request.initResults(), {.tokens = part_of(batch->tokens, first),
                                        .scores = part_of(batch->scores, first),
                                        .ends = is_last ? batch->ends : std::vector<RequestEnd>{},
                                        .stats = batch->stats});
  auto sent = request.send();
  if (is_last) return sent;
  return sent.then([this, batch, next] { return send(batch, next); });
}

}  // namespace chainpump::transport::rpc
