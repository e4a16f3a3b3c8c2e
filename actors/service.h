// A deployment as a service: node agent, coordinator and ranks of one machine, each a process of
// its own. This is the supervisor over them: it starts them, and when one dies ends them all; but a
// coordinator or node agent that was killed is followed by another, which goes on where it was, as
// often as the plan has ranks repaired (failover). Runtimes in any process of the same user may use
// the deployment (Runtime::attach). With a store that several services share, this one has no
// agent, and its coordinator leads or stands by (actors/succession.h); it is followed by another
// also when it has stepped down.
//
// In the folder: the sockets agent.sock, coordinator.sock and rank-N.sock, the file plan, and
// state.db, by which one coordinator follows another. Who
// owns the folder, and that there is one service in it, is the caller's business.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "graph/plan.h"
#include "transport/rpc/control_types.h"

namespace chainpump::actors {

struct ServiceOptions {
  std::string program;  // whose verbs the processes are; empty: this program
  std::string isa;      // as RuntimeOptions
  bool spin_between_ops = true;
  std::string cache_folder;
  // Of a cluster, whose nodes join at the `nodes` file of the folder (actors/membership.h):
  std::string node = {};          // this machine's name; empty: there is none
  std::string certificates = {};  // folder, of the role coordinator
  std::string data_address = {};  // as RankTerms, of this machine's ranks
  // Of the graph file, for who changes it (ServiceSpec): as it is in force, and as it was written.
  std::string graph = {};
  std::string graph_text = {};
  // That other services share, which serve the same plan: one coordinator leads, and ranks are on
  // nodes alone. An empty address: there is none.
  transport::rpc::StoreSpec store = {};
  transport::rpc::WeightSource weights = {};  // where nodes find the model file
};

class Service {
 public:
  /// Starts its processes; the stages come up in their own time. If the calling process or thread
  /// dies, so do they. What a dead service left in the folder is removed.
  static Result<std::unique_ptr<Service>> start(const std::string& folder, const graph::Plan& plan,
                                                const ServiceOptions& options);
  /// What the service in `folder` was started with, or has been changed to since. not_found,
  /// bad_file.
  static Result<transport::rpc::ServiceSpec> spec_of(const std::string& folder);
  /// Its plan; invalid_argument, too.
  static Result<graph::Plan> plan_of(const std::string& folder);
  /// Ranks leave in order where they can; no process and nothing in the folder is left. Within
  /// seconds; on the thread that started it.
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  /// Readable once the service has failed. Owned by this object.
  int failure_fd() const;
  /// Why it has failed: "the node agent died: killed by SIGKILL (Killed)", or why the deployment
  /// cannot be brought up or went down. Only once failure_fd() is readable; may take a tenth of a
  /// second, since what a death causes may be heard of before the death.
  Error why_failed();
  /// Whether it failed because its coordinators and node agents died too often: another service
  /// would, too.
  bool has_given_up() const;

 private:
  struct Impl;
  explicit Service(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chainpump::actors
