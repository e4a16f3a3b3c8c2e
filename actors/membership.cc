#include "actors/membership.h"

#include <poll.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>

#include "base/thread.h"
#include "transport/rpc/cluster_server.h"
#include "transport/rpc/service_file.h"

namespace chainpump::actors {
namespace {

namespace rpc = transport::rpc;

constexpr int kLookEveryMs = 50;

}  // namespace

struct Membership::Impl final : rpc::ClusterHandler {
  Impl(std::string path, std::function<void(const std::string&)> notice)
      : nodes_path(std::move(path)), on_notice(std::move(notice)) {}

  Status on_join(uint64_t member, const rpc::NodeInfo& node) override {
    {
      const std::lock_guard lock(mutex);
      for (const auto& [other, info] : members)
        if (info.name == node.name)
          return make_error(ErrorCode::overloaded,
                            "there is a node '{}' already, with its agent at {}", node.name,
                            info.agent);
      members[member] = node;
      const Status written = write_down();
      if (!written.ok()) {
        members.erase(member);
        return written;
      }
    }
    on_notice(fmt::format("node '{}' has joined, with its agent at {}", node.name, node.agent));
    return ok_status();
  }

  void on_leave(uint64_t member) override {
    std::string name;
    {
      const std::lock_guard lock(mutex);
      const auto found = members.find(member);
      if (found == members.end()) return;
      name = found->second.name;
      members.erase(found);
      // A coordinator that still finds it there cannot connect to it.
      (void)write_down();
    }
    on_notice(fmt::format("node '{}' has gone", name));
  }

  std::vector<rpc::NodeInfo> nodes() const {
    const std::lock_guard lock(mutex);
    return sorted();
  }

  // Under the lock:
  std::vector<rpc::NodeInfo> sorted() const {
    std::vector<rpc::NodeInfo> all;
    for (const auto& [member, node] : members) all.push_back(node);
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return all;
  }
  Status write_down() const { return rpc::write_nodes_file(nodes_path, sorted()); }

  const std::string nodes_path;
  const std::function<void(const std::string&)> on_notice;
  mutable std::mutex mutex;
  std::map<uint64_t, rpc::NodeInfo> members;
  rpc::ClusterServer server{*this};
  std::thread thread;
};

Membership::Membership(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Membership::~Membership() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Result<std::unique_ptr<Membership>> Membership::create(
    UniqueFd listener, std::shared_ptr<const rpc::Credentials> credentials, std::string nodes_file,
    std::function<void(const std::string&)> on_notice) {
  auto impl = std::make_unique<Impl>(std::move(nodes_file), std::move(on_notice));
  {
    const std::lock_guard lock(impl->mutex);
    RETURN_IF_ERROR(impl->write_down());
  }
  const rpc::Admission admission{std::move(credentials), rpc::Role::node, impl->on_notice};
  ASSIGN_OR_RETURN(impl->thread,
                   start_thread("the thread where nodes join",
                                [raw = impl.get(), fd = listener.release(), admission] {
                                  const Status served = raw->server.run(UniqueFd(fd), admission);
                                  if (!served.ok()) raw->on_notice(served.error().message);
                                }));
  return std::unique_ptr<Membership>(new Membership(std::move(impl)));
}

std::vector<rpc::NodeInfo> Membership::nodes() const { return impl_->nodes(); }

bool Membership::wait(const std::function<bool(const std::vector<rpc::NodeInfo>&)>& enough,
                      TimePoint deadline, int fd) const {
  while (!enough(nodes())) {
    if (steady_clock().now() >= deadline) return false;
    pollfd interrupt{fd, POLLIN, 0};
    if (::poll(&interrupt, 1, kLookEveryMs) == 1) return false;
  }
  return true;
}

}  // namespace chainpump::actors
