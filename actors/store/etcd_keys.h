// What stands where in etcd, of one deployment:
//
//   PREFIX/NAME/leader              who leads (Candidate); goes with its lease
//   PREFIX/NAME/candidates/WHO-PID  who would (Candidate); likewise
//   PREFIX/NAME/plan                the plan that all go by: a service file
//                                   (transport/rpc/service_file.h) of nothing else
//   PREFIX/NAME/record              graph/deployment_record.h, as JSON
//   PREFIX/NAME/lanes               where they are, for those who stand by (lane_notes.h)
//
// The last three are written by the leader alone, if the leader's key was created when it began to
// lead, and go when the deployment ends in order. Plain data.
#pragma once

#include <cstdint>
#include <string>

namespace chainpump::actors {

struct EtcdKeys {
  std::string prefix;  // with the deployment's name
  std::string leader() const { return prefix + "/leader"; }
  std::string candidates() const { return prefix + "/candidates/"; }
  std::string plan() const { return prefix + "/plan"; }
  std::string record() const { return prefix + "/record"; }
  std::string lanes() const { return prefix + "/lanes"; }
};

/// A coordinator: its machine and process.
struct Candidate {
  std::string name;
  int32_t pid = 0;
  bool operator==(const Candidate&) const = default;
};

inline std::string candidate_key(const EtcdKeys& keys, const Candidate& who) {
  return keys.candidates() + who.name + "-" + std::to_string(who.pid);
}

}  // namespace chainpump::actors
