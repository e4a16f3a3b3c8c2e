// The plan that all `serve`s of a deployment go by, where they share a store: that of the first,
// from when it has planned until the deployment is taken down in order. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "actors/store/etcd_client.h"
#include "actors/store/etcd_keys.h"
#include "base/result.h"
#include "transport/rpc/control_types.h"

namespace chainpump::cli {

class SharedPlan {
 public:
  /// Of the deployment `name`. invalid_argument.
  static Result<std::unique_ptr<SharedPlan>> open(const transport::rpc::StoreSpec& store,
                                                  const std::string& name);

  /// What is agreed on; nothing if nobody has planned. disconnected, deadline_exceeded: the store
  /// cannot be reached; bad_file.
  Result<std::optional<transport::rpc::ServiceSpec>> find() const;
  /// The same, and if nobody has planned, `mine`.
  Result<transport::rpc::ServiceSpec> agree(const transport::rpc::ServiceSpec& mine) const;
  /// With the keys' prefix, and the files where every process finds them.
  const transport::rpc::StoreSpec& store() const { return store_; }

 private:
  SharedPlan(transport::rpc::StoreSpec store, std::unique_ptr<actors::EtcdClient> client)
      : store_(std::move(store)), client_(std::move(client)), keys_{store_.prefix} {}

  const transport::rpc::StoreSpec store_;
  const std::unique_ptr<actors::EtcdClient> client_;
  const actors::EtcdKeys keys_;
};

}  // namespace chainpump::cli
