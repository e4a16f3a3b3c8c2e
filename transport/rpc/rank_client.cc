#include "transport/rpc/rank_client.h"

#include "transport/rpc/connection.h"
#include "transport/rpc/convert.h"
#include "transport/rpc/fields.h"

namespace chainpump::transport::rpc {
namespace {

class ProgressServer final : public schema::ProgressSink::Server {
 public:
  explicit ProgressServer(ProgressCallback callback) : callback_(std::move(callback)) {}
  kj::Promise<void> report(ReportContext context) override {
    const auto params = context.getParams();
    if (callback_) callback_(params.getBytesDone(), params.getBytesTotal());
    return kj::READY_NOW;
  }

 private:
  ProgressCallback callback_;
};

class SinkServer final : public schema::LaneSink::Server {
 public:
  explicit SinkServer(std::function<void(LaneResults)> callback) : callback_(std::move(callback)) {}
  kj::Promise<void> results(ResultsContext context) override {
    const auto in = context.getParams().getResults();
    LaneResults results;
    read_list(in.getTokens(), results.tokens);
    read_list(in.getScores(), results.scores);
    read_list(in.getEnds(), results.ends);
    read(in.getStats(), results.stats);
    if (callback_) callback_(std::move(results));
    return kj::READY_NOW;
  }

 private:
  std::function<void(LaneResults)> callback_;
};

schema::Lane::Client& lane_of(Connection& connection, uint8_t lane) {
  const auto found = connection.lanes.find(lane);
  if (found == connection.lanes.end())
    kj::throwFatalException(
        to_exception(make_error(ErrorCode::invalid_argument, "not attached to lane {}", lane)));
  return found->second;
}

}  // namespace

RankClient::RankClient(RpcThread& thread, Channel channel, std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(channel), "the rank", std::move(on_disconnect))) {}

RankClient::~RankClient() { thread_->drop(connection_); }

void RankClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply>(connection_, "hello", deadline, std::move(callback),
                            say_hello<schema::Rank>);
}

void RankClient::load(LoadParams params, Duration deadline, ProgressCallback progress,
                      Callback<LoadReport> callback) {
  thread_->call<LoadReport>(
      connection_, "load", deadline, std::move(callback),
      [params = std::move(params), progress = std::move(progress)](schema::Rank::Client& rank) {
        auto request = rank.loadRequest();
        write(request.initParams(), params);
        request.setProgress(kj::heap<ProgressServer>(progress));
        return request.send().then([](auto&& response) {
          LoadReport report;
          read(response.getReport(), report);
          return report;
        });
      });
}

void RankClient::connect(ConnectParams params, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "connect", deadline, std::move(callback),
                    [params = std::move(params)](schema::Rank::Client& rank) {
                      auto request = rank.connectRequest();
                      request.setEpoch(params.epoch);
                      write_list(request.initLinks(params.links.size()), params.links);
                      write_list(request.initAccept(params.accept.size()), params.accept);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::attach(uint8_t lane, std::function<void(LaneResults)> on_results,
                        Duration deadline, Callback<Ok> callback) {
  thread_->with_connection<Ok>(
      connection_, "attach", deadline, std::move(callback),
      [lane, on_results = std::move(on_results)](Connection& connection) -> kj::Promise<Ok> {
        auto request = connection.api<schema::Rank>().attachRequest();
        request.setSink(kj::heap<SinkServer>(on_results));
        request.setLaneId(lane);
        auto sent = request.send();
        connection.lanes.emplace(lane, sent.getLane());  // a second is refused: the first stays
        return sent.then([](auto&&) { return Ok{}; });
      });
}

void RankClient::submit(uint8_t lane, std::vector<GenerateRequest> requests, Duration deadline,
                        Callback<Ok> callback) {
  thread_->with_connection<Ok>(
      connection_, "submit", deadline, std::move(callback),
      [lane, requests = std::move(requests)](Connection& connection) -> kj::Promise<Ok> {
        auto request = lane_of(connection, lane).submitRequest();
        write_list(request.initRequests(static_cast<uint32_t>(requests.size())), requests);
        return request.send().then([](auto&&) { return Ok{}; });
      });
}

void RankClient::cancel(uint8_t lane, std::vector<uint64_t> request_ids, Duration deadline,
                        Callback<Ok> callback) {
  thread_->with_connection<Ok>(
      connection_, "cancel", deadline, std::move(callback),
      [lane, ids = std::move(request_ids)](Connection& connection) -> kj::Promise<Ok> {
        auto request = lane_of(connection, lane).cancelRequest();
        auto list = request.initRequestIds(static_cast<uint32_t>(ids.size()));
        for (uint32_t i = 0; i < list.size(); ++i) list.set(i, ids[i]);
        return request.send().then([](auto&&) { return Ok{}; });
      });
}

void RankClient::stats(Duration deadline, Callback<RankStats> callback) {
  thread_->call<RankStats>(connection_, "stats", deadline, std::move(callback),
                           [](schema::Rank::Client& rank) {
                             return rank.statsRequest().send().then([](auto&& response) {
                               RankStats stats;
                               read(response.getStats(), stats);
                               return stats;
                             });
                           });
}

void RankClient::trace(uint64_t since, Duration deadline, Callback<StepEvents> callback) {
  thread_->call<StepEvents>(connection_, "trace", deadline, std::move(callback),
                            [since](schema::Rank::Client& rank) {
                              auto request = rank.traceRequest();
                              request.setSince(since);
                              return request.send().then([](auto&& response) {
                                StepEvents events;
                                read(response.getEvents(), events);
                                return events;
                              });
                            });
}

void RankClient::shutdown(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "shutdown", deadline, std::move(callback),
                    [](schema::Rank::Client& rank) {
                      return rank.shutdownRequest().send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::watch(bool of_links, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "watch", Duration::max(), std::move(callback),
                    [of_links](schema::Rank::Client& rank) {
                      auto request = rank.watchRequest();
                      request.setOfLinks(of_links);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::beat(Duration deadline, Callback<BeatReply> callback) {
  thread_->call<BeatReply>(connection_, "beat", deadline, std::move(callback),
                           [](schema::Rank::Client& rank) {
                             return rank.beatRequest().send().then([](auto&& response) {
                               BeatReply beat{.count = response.getCount()};
                               read_list(response.getLinks(), beat.links);
                               read(response.getSteps(), beat.steps);
                               return beat;
                             });
                           });
}

void RankClient::fence(uint8_t lane, uint32_t epoch, Duration deadline,
                       Callback<StageHoldings> callback) {
  thread_->call<StageHoldings>(connection_, "fence", deadline, std::move(callback),
                               [lane, epoch](schema::Rank::Client& rank) {
                                 auto request = rank.fenceRequest();
                                 request.setLaneId(lane);
                                 request.setEpoch(epoch);
                                 return request.send().then([](auto&& response) {
                                   StageHoldings holdings;
                                   read(response.getHoldings(), holdings);
                                   return holdings;
                                 });
                               });
}

void RankClient::resume(uint8_t lane, uint32_t epoch, std::vector<StageHoldings> stages,
                        Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "resume", deadline, std::move(callback),
                    [lane, epoch, stages = std::move(stages)](schema::Rank::Client& rank) {
                      auto request = rank.resumeRequest();
                      request.setLaneId(lane);
                      request.setEpoch(epoch);
                      write_list(request.initStages(num(stages)), stages);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::arm(const FaultOrder& fault, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "arm", deadline, std::move(callback),
                    [fault](schema::Rank::Client& rank) {
                      auto request = rank.armRequest();
                      write(request.initFault(), fault);
                      return request.send().then([](auto&&) { return Ok{}; });
                    });
}

void RankClient::take_in(KvCopy copy, Duration deadline, Callback<KvAddress> callback) {
  thread_->call<KvAddress>(connection_, "takeIn", deadline, std::move(callback),
                           [copy = std::move(copy)](schema::Rank::Client& rank) {
                             auto request = rank.takeInRequest();
                             write(request.initCopy(), copy);
                             return request.send().then([](auto&& response) {
                               return KvAddress{text(response.getAddress()), response.getPort()};
                             });
                           });
}

void RankClient::copy(KvCopy copy, Duration deadline, ProgressCallback progress,
                      Callback<Ok> callback) {
  thread_->call<Ok>(
      connection_, "copy", deadline, std::move(callback),
      [copy = std::move(copy), progress = std::move(progress)](schema::Rank::Client& rank) {
        auto request = rank.copyRequest();
        write(request.initCopy(), copy);
        request.setProgress(kj::heap<ProgressServer>(progress));
        return request.send().then([](auto&&) { return Ok{}; });
      });
}

void RankClient::finish_copy(Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok>(connection_, "finishCopy", deadline, std::move(callback),
                    [](schema::Rank::Client& rank) {
                      return rank.finishCopyRequest().send().then([](auto&&) { return Ok{}; });
                    });
}

}  // namespace chainpump::transport::rpc
