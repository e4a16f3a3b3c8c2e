#include "transport/rpc/cluster_client.h"

#include "transport/rpc/connection.h"
#include "transport/rpc/convert.h"

namespace chainpump::transport::rpc {

using Api = schema::Cluster;

ClusterClient::ClusterClient(RpcThread& thread, Channel channel,
                             std::function<void(Error)> on_disconnect)
    : thread_(thread.impl()),
      connection_(thread_->open(std::move(channel), "the cluster", std::move(on_disconnect))) {}

ClusterClient::~ClusterClient() { thread_->drop(connection_); }

void ClusterClient::hello(Duration deadline, Callback<HelloReply> callback) {
  thread_->call<HelloReply, Api>(connection_, "hello", deadline, std::move(callback),
                                 say_hello<Api>);
}

void ClusterClient::join(const NodeInfo& node, Duration deadline, Callback<Ok> callback) {
  thread_->call<Ok, Api>(connection_, "join", deadline, std::move(callback),
                         [node](Api::Client& cluster) {
                           auto request = cluster.joinRequest();
                           write(request.initNode(), node);
                           return request.send().then([](auto&&) { return Ok{}; });
                         });
}

}  // namespace chainpump::transport::rpc
