// Who has joined: the machines of a cluster, as `serve` knows them. It listens where nodes join,
// for as long as it lives, so that it outlives coordinators; and it writes them to the file `nodes`
// in the service's folder, by which coordinators find their agents.
//
// A node is there as long as its connection is: one that the network has lost is missed after
// seconds (transport/rpc/channel.h). Until then nobody else can have its name.
// Any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "transport/rpc/control_types.h"
#include "transport/rpc/credentials.h"

namespace chainpump::actors {

class Membership {
 public:
  /// Nodes join at `listener`. `on_notice` is told who comes, goes and is refused, in sentences, on
  /// a thread of its own. no_room.
  static Result<std::unique_ptr<Membership>> create(
      UniqueFd listener, std::shared_ptr<const transport::rpc::Credentials> credentials,
      std::string nodes_file, std::function<void(const std::string&)> on_notice);
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  /// In the order of their names.
  std::vector<transport::rpc::NodeInfo> nodes() const;
  /// Waits until `enough` of them have joined, or `fd` is readable, or the deadline; true in the
  /// first case.
  bool wait(const std::function<bool(const std::vector<transport::rpc::NodeInfo>&)>& enough,
            TimePoint deadline, int fd) const;

 private:
  struct Impl;
  explicit Membership(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::actors
