#include "transport/rpc/weights_server.h"

#include "transport/rpc/convert.h"
#include "transport/rpc/serving.h"

namespace chainpump::transport::rpc {
namespace {

constexpr uint64_t kAnswerBytesMax = uint64_t{63} << 20;  // within what a message may hold

kj::ArrayPtr<const kj::byte> to_kj_bytes(const void* data, size_t size) {
  return {static_cast<const kj::byte*>(data), size};
}

ModelIdentity model_of(schema::ModelIdentity::Reader in) {
  ModelIdentity model;
  read(in, model);
  return model;
}

}  // namespace

struct WeightsServer::Impl {
  explicit Impl(WeightsHandler& given) : handler(given), serving("") { serving.is_bulk = true; }
  WeightsHandler& handler;
  Serving serving;
};

namespace {

class WeightsApi final : public schema::Weights::Server {
 public:
  WeightsApi(Serving& serving, WeightsHandler& handler) : peer_(serving), handler_(handler) {}

  kj::Promise<void> hello(HelloContext context) override {
    peer_.greet(context);
    return kj::READY_NOW;
  }
  kj::Promise<void> manifest(ManifestContext context) override {
    peer_.check(context);
    auto encoded = handler_.on_manifest(model_of(context.getParams().getModel()));
    const std::vector<std::byte>& bytes = value_of(encoded);
    if (bytes.size() > kAnswerBytesMax)
      return to_exception(make_error(ErrorCode::unimplemented, "the file is too large to fetch"));
    context.getResults().setEncoded(to_kj_bytes(bytes.data(), bytes.size()));
    return kj::READY_NOW;
  }
  kj::Promise<void> have(HaveContext context) override {
    peer_.check(context);
    const std::vector<uint8_t> has = handler_.on_have(model_of(context.getParams().getModel()));
    context.getResults().setPieces(to_kj_bytes(has.data(), has.size()));
    return kj::READY_NOW;
  }
  kj::Promise<void> read(ReadContext context) override {
    peer_.check(context);
    const auto params = context.getParams();
    auto piece = handler_.on_read(model_of(params.getModel()), params.getPiece());
    const std::vector<std::byte>& bytes = value_of(piece);
    context.getResults().setBytes(to_kj_bytes(bytes.data(), bytes.size()));
    return kj::READY_NOW;
  }

 private:
  Peer peer_;
  WeightsHandler& handler_;
};

}  // namespace

WeightsServer::WeightsServer(WeightsHandler& handler) : impl_(std::make_unique<Impl>(handler)) {}
WeightsServer::~WeightsServer() = default;

Status WeightsServer::run(UniqueFd listener, const Admission& admission) {
  return serve_control(
      impl_->serving, UniqueFd(), std::move(listener),
      [this](const std::optional<Identity>&) -> capnp::Capability::Client {
        return kj::heap<WeightsApi>(impl_->serving, impl_->handler);
      },
      admission);
}

void WeightsServer::stop() {
  impl_->serving.inbox->post([impl = impl_.get()] { impl->serving.stop->fulfill(); });
}

}  // namespace chainpump::transport::rpc
