// Where a coordinator writes down what the next one has to know (graph/deployment_record.h). One
// interface: a file of one machine, or a cluster's shared store (actors/store/etcd_store.h).
// Written seldom: when a rank has gone or come, never for a token. One thread, the coordinator's.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "graph/deployment_record.h"

namespace chainpump::actors {

class StateStore {
 public:
  virtual ~StateStore() = default;
  /// What was written last; nothing if nothing ever was. bad_file.
  virtual Result<std::optional<graph::DeploymentRecord>> read() = 0;
  /// In place of what was written before, as a whole or not at all. The next coordinator finds it
  /// once this has returned, however this process ends. no_room: a full disk; cancelled: another
  /// coordinator leads; internal.
  virtual Status write(const graph::DeploymentRecord& record) = 0;
  /// The deployment has ended: the next one begins with nothing. As write().
  virtual Status clear() = 0;
};

/// An SQLite database of one coordinator at a time, made if it is not there, for its user alone. It
/// is not flushed to the disk: what it tells of ends with the machine. bad_file: no such database,
/// damaged, or of another release; overloaded: another process has it; no_room; internal.
Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path);

}  // namespace chainpump::actors
