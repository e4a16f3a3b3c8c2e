#include "gateway/rpc/sessions.h"

#include "base/version.h"
#include "gateway/rpc/convert.h"
#include "gateway/rpc/pump.h"

namespace chainpump::gateway::rpc {
namespace {

// A prompt of fewer bytes is encoded in less time than another thread takes to wake.
constexpr uint64_t kQuickBytes = 16 << 10;

bool is_quick(capnp::MessageSize size) {
  return size.wordCount * sizeof(capnp::word) <= kQuickBytes;
}

/// A client's hold on a generation: with its end the request's.
class GenerationServer final : public api::Generation::Server {
 public:
  explicit GenerationServer(std::shared_ptr<Pump> pump) : pump_(std::move(pump)) {}
  kj::Promise<void> cancel(CancelContext) override {
    pump_->cancel();
    return kj::READY_NOW;
  }

 private:
  std::shared_ptr<Pump> pump_;
};

/// A score call that waits for its answer; dropped, it cancels it.
class ScoreCall final : public std::enable_shared_from_this<ScoreCall> {
 public:
  ScoreCall(Serving& serving, Place place, kj::Own<kj::PromiseFulfiller<Result<Scores>>> fulfiller)
      : serving_(serving), place_(std::move(place)), fulfiller_(kj::mv(fulfiller)) {}
  ~ScoreCall() {
    if (scoring_) scoring_->cancel();
  }
  Wake wake_of() {
    return [inbox = serving_.inbox, weak = weak_from_this()] {
      inbox->post([weak] {
        if (const auto alive = weak.lock()) alive->look();
      });
    };
  }
  void begin(Result<std::shared_ptr<Scoring>> scoring) {
    if (!scoring.ok()) return fulfiller_->fulfill(scoring.error());
    scoring_ = std::move(*scoring);
    look();
  }

 private:
  void look() {
    if (!scoring_) return;
    if (auto answer = scoring_->take()) fulfiller_->fulfill(std::move(*answer));
  }
  Serving& serving_;
  Place place_;
  kj::Own<kj::PromiseFulfiller<Result<Scores>>> fulfiller_;
  std::shared_ptr<Scoring> scoring_;
};

class SessionServer final : public api::Session::Server {
 public:
  SessionServer(Serving& serving, std::shared_ptr<Peer> peer)
      : serving_(serving),
        peer_(std::move(peer)),
        place_(peer_, &Peer::num_sessions, serving.options.sessions_max, "sessions") {}

  kj::Promise<void> deployment(DeploymentContext context) override {
    write(context.getResults().initDeployment(), *serving_.core.deployment());
    return kj::READY_NOW;
  }

  kj::Promise<void> ready(ReadyContext context) override {
    context.allowCancellation();
    return serving_.wait_ready();
  }

  kj::Promise<void> tokenize(TokenizeContext context) override {
    context.allowCancellation();
    const bool quick = is_quick(context.getParams().totalSize());
    auto encode = [&core = serving_.core, prompt = read(context.getParams().getPrompt())] {
      return core.tokenize(prompt);
    };
    auto answer = [context](Result<TokenIds> result) mutable {
      const TokenIds ids = value_of(std::move(result));
      write_ints(context.getResults().initIds(num(ids)), ids);
    };
    if (!quick)
      return serving_.off_loop<Result<TokenIds>>(serving_.prompts, std::move(encode))
          .then(kj::mv(answer));
    answer(encode());
    return kj::READY_NOW;
  }

  kj::Promise<void> generate(GenerateContext context) override {
    context.allowCancellation();
    const auto params = context.getParams();
    auto pump = std::make_shared<Pump>(
        serving_, params.getSink(),
        Place(peer_, &Peer::num_requests, serving_.options.requests_max, "requests under way"),
        Place(peer_, &Peer::num_generations, serving_.options.generations_max,
              "generations that it has not dropped"));
    using Admitted = Result<std::shared_ptr<Generation>>;
    auto admit = [&core = serving_.core, wake = pump->wake_of(),
                  request = read(params.getRequest())] { return core.generate(request, wake); };
    auto answer = [context, pump](Admitted admitted) mutable {
      auto generation = value_of(std::move(admitted));
      auto results = context.getResults();
      results.setRequestId(generation->id().value);
      results.setSeed(generation->seed());
      results.setPromptTokens(generation->num_prompt_tokens());
      pump->begin(std::move(generation));
      results.setGeneration(kj::heap<GenerationServer>(pump));
    };
    if (!is_quick(params.totalSize()))
      return serving_
          .off_loop<Admitted>(serving_.prompts, std::move(admit),
                              [](Admitted admitted) {
                                if (admitted.ok()) (*admitted)->cancel();
                              })
          .then(kj::mv(answer));
    answer(admit());
    return kj::READY_NOW;
  }

  kj::Promise<void> score(ScoreContext context) override {
    context.allowCancellation();
    auto paf = kj::newPromiseAndFulfiller<Result<Scores>>();
    auto call = std::make_shared<ScoreCall>(
        serving_,
        Place(peer_, &Peer::num_requests, serving_.options.requests_max, "requests under way"),
        kj::mv(paf.fulfiller));
    call->begin(serving_.core.score(read(context.getParams().getRequest()), call->wake_of()));
    return paf.promise
        .then([context](Result<Scores> result) mutable {
          const Scores scores = value_of(std::move(result));
          auto results = context.getResults();
          auto logprobs = results.initLogprobs(static_cast<uint32_t>(scores.logprobs.size()));
          for (uint32_t i = 0; i < logprobs.size(); ++i) logprobs.set(i, scores.logprobs[i]);
          write_ints(results.initArgmax(num(scores.argmax)), scores.argmax);
        })
        .attach(kj::mv(call));
  }

 private:
  Serving& serving_;
  std::shared_ptr<Peer> peer_;
  Place place_;
};

class GatewayServer final : public api::Gateway::Server {
 public:
  GatewayServer(Serving& serving, std::shared_ptr<Peer> peer)
      : serving_(serving), peer_(std::move(peer)) {}

  kj::Promise<void> hello(HelloContext context) override {
    auto results = context.getResults();
    results.setInterfaceVersion(api::INTERFACE_VERSION);
    results.setBuild(serving_.core.deployment()->build.c_str());
    return kj::READY_NOW;
  }

  kj::Promise<void> authenticate(AuthenticateContext context) override {
    if (!peer_->may_enter || context.getParams().getKey().size() != 0)
      return transport::rpc::to_exception(
          make_error(ErrorCode::invalid_argument,
                     "this socket serves processes of its own user, without a key"));
    auto results = context.getResults();
    results.setSession(kj::heap<SessionServer>(serving_, peer_));
    results.setOperator(make_operator_server(serving_, peer_));
    return kj::READY_NOW;
  }

 private:
  Serving& serving_;
  std::shared_ptr<Peer> peer_;
};

}  // namespace

kj::Own<capnp::Capability::Server> make_gateway_server(Serving& serving,
                                                       std::shared_ptr<Peer> peer) {
  return kj::heap<GatewayServer>(serving, std::move(peer));
}

}  // namespace chainpump::gateway::rpc
