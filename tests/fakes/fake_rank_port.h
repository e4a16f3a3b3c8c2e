// A rank that does nothing by itself: it keeps what it is told, and a test has it say what it will.
// Threads: as the test uses it.
#pragma once

#include <boost/test/unit_test.hpp>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "actors/rank_port.h"

namespace chainpump::fakes {

namespace rpc = transport::rpc;

class FakeRankPort final : public actors::RankPort {
 public:
  struct Submitted {
    std::vector<rpc::GenerateRequest> requests;
    Duration deadline;
    rpc::Callback<Ok> callback;
  };

  void attach(graph::LaneId lane, std::function<void(rpc::LaneResults)> on_results, Duration,
              rpc::Callback<Ok> callback) override {
    BOOST_TEST(calls.empty());  // the first of all
    calls.push_back("attach");
    attached_to = lane;
    results = std::move(on_results);
    attach_answer = std::move(callback);
    if (attach_refused) attach_answer(*attach_refused);
  }
  void watch(bool of_links, rpc::Callback<Ok> callback) override {
    BOOST_TEST(!of_links);
    calls.push_back("watch");
    watch_answer = std::move(callback);
  }
  void submit(graph::LaneId lane, std::vector<rpc::GenerateRequest> requests, Duration deadline,
              rpc::Callback<Ok> callback) override {
    BOOST_TEST((lane == attached_to));
    before_submit();
    calls.push_back("submit");
    submitted.push_back({std::move(requests), deadline, std::move(callback)});
  }
  void cancel(graph::LaneId lane, std::vector<uint64_t> request_ids, Duration,
              rpc::Callback<Ok> callback) override {
    BOOST_TEST((lane == attached_to));
    calls.push_back("cancel");
    cancelled.insert(cancelled.end(), request_ids.begin(), request_ids.end());
    callback(Ok{});
  }

  void hello(Duration, rpc::Callback<rpc::HelloReply>) override { unexpected(); }
  void load(rpc::LoadParams, Duration, rpc::ProgressCallback,
            rpc::Callback<rpc::LoadReport>) override {
    unexpected();
  }
  void connect(rpc::ConnectParams, Duration, rpc::Callback<Ok>) override { unexpected(); }
  void stats(Duration, rpc::Callback<rpc::RankStats>) override { unexpected(); }
  void trace(uint64_t, Duration, rpc::Callback<StepEvents>) override { unexpected(); }
  void shutdown(Duration, rpc::Callback<Ok>) override { unexpected(); }
  void beat(Duration, rpc::Callback<rpc::BeatReply>) override {}
  void fence(graph::LaneId, PlanEpoch, Duration, rpc::Callback<rpc::StageHoldings>) override {
    unexpected();
  }
  void resume(graph::LaneId, PlanEpoch, std::vector<rpc::StageHoldings>, Duration,
              rpc::Callback<Ok>) override {
    unexpected();
  }
  void take_in(rpc::KvCopy, Duration, rpc::Callback<rpc::KvAddress>) override { unexpected(); }
  void copy(rpc::KvCopy, Duration, rpc::ProgressCallback, rpc::Callback<Ok>) override {
    unexpected();
  }
  void finish_copy(Duration, rpc::Callback<Ok>) override { unexpected(); }

  /// All it was given, in order.
  std::vector<rpc::GenerateRequest> requests() const {
    std::vector<rpc::GenerateRequest> all;
    for (const Submitted& call : submitted)
      all.insert(all.end(), call.requests.begin(), call.requests.end());
    return all;
  }

  std::function<void()> before_submit = [] {};
  std::vector<const char*> calls;  // by name
  graph::LaneId attached_to;
  std::optional<Error> attach_refused;  // at once, in the call
  std::function<void(rpc::LaneResults)> results;
  rpc::Callback<Ok> attach_answer;
  rpc::Callback<Ok> watch_answer;
  std::vector<Submitted> submitted;
  std::vector<uint64_t> cancelled;

 private:
  static void unexpected() { BOOST_ERROR("a lane does not call that"); }
};

}  // namespace chainpump::fakes
