// `chainpump node --join HOST:PORT`: makes this machine a node of a cluster
// (actors/node_process.h). `chainpump cert init`, `cert issue`: the certificates by which a
// cluster's machines know each other (transport/rpc/certificates.h). One thread, the command's.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "actors/node_process.h"

namespace chainpump::cli {

struct NodeFlags {
  actors::NodeOptions node;
  // Of `cert`:
  std::string authority;
  std::string name;
  std::string role = "node";
  int32_t days = 365;
};

void add_node_verbs(CLI::App& app, NodeFlags& flags);

/// The exit status: 0 after SIGTERM or SIGINT; else as in exit_status.h, with the reason on
/// standard error.
int run_node(NodeFlags& flags);
int run_cert(const CLI::App& verb, const NodeFlags& flags);

}  // namespace chainpump::cli
