#include "gateway/rpc/convert.h"
#include "gateway/rpc/sessions.h"

namespace chainpump::gateway::rpc {
namespace {

constexpr Duration kReportMax = std::chrono::milliseconds(800);

/// Sends events as they come; lives as long as the call.
class Watch final : public Ticked {
 public:
  Watch(Serving& serving, api::EventSink::Client sink, uint64_t after, Place place)
      : Ticked(serving),
        core_(serving.core),
        sink_(kj::mv(sink)),
        last_(after),
        place_(std::move(place)) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    broken_ = kj::mv(paf.fulfiller);
    end_ = kj::mv(paf.promise);
  }
  void tick() override {
    if (sending_) return;
    const std::vector<Event> events = core_.events_after(last_);
    if (events.empty()) return;
    last_ = events.back().number;
    sending_ = true;
    auto request = sink_.eventsRequest();
    auto list = request.initEvents(static_cast<uint32_t>(events.size()));
    for (uint32_t i = 0; i < list.size(); ++i) write(list[i], events[i]);
    task_ = request.send()
                .then([this] { sending_ = false; })
                .eagerlyEvaluate([this](kj::Exception&& e) { broken_->reject(kj::mv(e)); });
  }
  kj::Promise<void> end() { return kj::mv(end_); }

 private:
  Core& core_;
  api::EventSink::Client sink_;
  uint64_t last_;
  Place place_;
  bool sending_ = false;
  kj::Own<kj::PromiseFulfiller<void>> broken_;
  kj::Promise<void> end_ = kj::NEVER_DONE;
  kj::Promise<void> task_ = kj::READY_NOW;
};

/// Nobody is asked while some rank cannot answer: all of them together would not. Whether it is
/// ready may have changed meanwhile.
void add_stages(const Core& core, StatusReport& report) {
  if (report.phase == Phase::loading) return;
  for (const graph::LaneHealth& lane : report.readiness.lanes)
    if (lane.state == graph::LaneHealth::State::away)
      report.stages_missing = fmt::format("lane {} is away", lane.lane);
  if (!report.stages_missing.empty()) return;
  Result<actors::RuntimeReport> stages = core.stages(kReportMax);
  if (stages.ok())
    report.stages = std::move(*stages);
  else
    report.stages_missing = stages.error().message;
  report.readiness = core.readiness();
}

class OperatorServer final : public api::Operator::Server {
 public:
  OperatorServer(Serving& serving, std::shared_ptr<Peer> peer)
      : serving_(serving),
        peer_(std::move(peer)),
        place_(peer_, &Peer::num_operators, serving.options.sessions_max, "operators") {}

  kj::Promise<void> status(StatusContext context) override {
    context.allowCancellation();
    return serving_
        .off_loop<StatusReport>(serving_.reports,
                                [&core = serving_.core] {
                                  StatusReport report = core.status();
                                  // A stage that does not answer must not hide the rest.
                                  add_stages(core, report);
                                  return report;
                                })
        .then([context](StatusReport report) mutable {
          write(context.getResults().initStatus(), report);
        });
  }

  kj::Promise<void> readiness(ReadinessContext context) override {
    write(context.getResults().initReadiness(), serving_.core.readiness());
    return kj::READY_NOW;
  }

  kj::Promise<void> trace(TraceContext context) override {
    context.allowCancellation();
    const RankId rank(context.getParams().getRank());
    const uint64_t since = context.getParams().getSince();
    return serving_
        .off_loop<Result<StepEvents>>(
            serving_.reports,
            [&core = serving_.core, rank, since] { return core.trace(rank, since, kReportMax); })
        .then([context](Result<StepEvents> events) mutable {
          transport::rpc::write_steps(context.getResults().initEvents(),
                                      value_of(std::move(events)));
        });
  }

  kj::Promise<void> watch(WatchContext context) override {
    context.allowCancellation();
    const auto params = context.getParams();
    auto watch =
        kj::heap<Watch>(serving_, params.getSink(), params.getAfter(),
                        Place(peer_, &Peer::num_watches, serving_.options.watches_max, "watches"));
    auto end = watch->end();
    return end.attach(kj::mv(watch));
  }

 private:
  Serving& serving_;
  std::shared_ptr<Peer> peer_;
  Place place_;
};

}  // namespace

kj::Own<api::Operator::Server> make_operator_server(Serving& serving, std::shared_ptr<Peer> peer) {
  return kj::heap<OperatorServer>(serving, std::move(peer));
}

}  // namespace chainpump::gateway::rpc
