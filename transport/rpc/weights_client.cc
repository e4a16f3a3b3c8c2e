#include "transport/rpc/weights_client.h"

#include "transport/rpc/connection.h"
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {
namespace {

using Api = schema::Weights;

template <typename T>
std::vector<T> copy_of(capnp::Data::Reader in) {
  const auto* begin = reinterpret_cast<const T*>(in.begin());
  return std::vector<T>(begin, begin + in.size());
}

}  // namespace

WeightsClient::WeightsClient(RpcThread& thread, Channel channel,
                             std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(channel), "who has weights", std::move(on_disconnect))) {}

WeightsClient::~WeightsClient() { thread_->drop(connection_); }

void WeightsClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply, Api>(connection_, "hello", deadline, std::move(callback),
                                 say_hello<Api>);
}

void WeightsClient::manifest(const ModelIdentity& model, Duration deadline,
                             Callback<std::vector<std::byte>> callback) {
  thread_->call<std::vector<std::byte>, Api>(
      connection_, "manifest", deadline, std::move(callback), [model](Api::Client& weights) {
        auto request = weights.manifestRequest();
        write(request.initModel(), model);
        return request.send().then(
            [](auto&& response) { return copy_of<std::byte>(response.getEncoded()); });
      });
}

void WeightsClient::have(const ModelIdentity& model, Duration deadline,
                         Callback<std::vector<uint8_t>> callback) {
  thread_->call<std::vector<uint8_t>, Api>(
      connection_, "have", deadline, std::move(callback), [model](Api::Client& weights) {
        auto request = weights.haveRequest();
        write(request.initModel(), model);
        return request.send().then(
            [](auto&& response) { return copy_of<uint8_t>(response.getPieces()); });
      });
}

void WeightsClient::read(const ModelIdentity& model, uint32_t piece, Duration deadline,
                         Callback<std::vector<std::byte>> callback) {
  thread_->call<std::vector<std::byte>, Api>(
      connection_, "read", deadline, std::move(callback), [model, piece](Api::Client& weights) {
        auto request = weights.readRequest();
        write(request.initModel(), model);
        request.setPiece(piece);
        return request.send().then(
            [](auto&& response) { return copy_of<std::byte>(response.getBytes()); });
      });
}

}  // namespace chainpump::transport::rpc
