#include "actors/store/etcd_store.h"

#include "actors/store/record_json.h"

namespace chainpump::actors {
namespace {

using graph::DeploymentRecord;

class EtcdStore final : public StateStore {
 public:
  EtcdStore(std::unique_ptr<EtcdClient> client, Fence fence)
      : term_(fence.term), key_(std::move(client), fence, fence.keys.record()) {}

  Result<std::optional<DeploymentRecord>> read() override {
    ASSIGN_OR_RETURN(const std::optional<std::string> text, key_.read());
    if (!text) return std::optional<DeploymentRecord>();
    ASSIGN_OR_RETURN(DeploymentRecord record,
                     record_from_json(*text, unix_minus_monotonic(), steady_clock().now()));
    return std::optional(std::move(record));
  }
  Status write(const DeploymentRecord& record) override {
    return key_.write(to_json_text(record, term_, unix_minus_monotonic()));
  }
  Status clear() override { return key_.clear(); }

 private:
  const int64_t term_;
  FencedKey key_;
};

}  // namespace

std::unique_ptr<StateStore> make_etcd_store(std::unique_ptr<EtcdClient> client, Fence fence) {
  return std::make_unique<EtcdStore>(std::move(client), std::move(fence));
}

}  // namespace chainpump::actors
