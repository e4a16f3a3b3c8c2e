#include "cli/node.h"

#include <signal.h>

#include <cstdio>
#include <filesystem>

#include "cli/exit_status.h"
#include "cli/machine.h"
#include "transport/rpc/certificates.h"

namespace chainpump::cli {
namespace {

namespace rpc = transport::rpc;

int ended(const Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", status.error().message.c_str());
  return exit_status(status.error().code);
}

Status print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return ok_status();
  return make_error(ErrorCode::internal, "standard output cannot be written");
}

Status init(const NodeFlags& flags) {
  RETURN_IF_ERROR(rpc::make_authority(flags.authority));
  return print(fmt::format(
      "{0}: the authority of a new cluster. {0}/ca-key.pem signs for it: keep it to yourself.\n"
      "next: chainpump cert issue {0} NAME, for each machine\n",
      flags.authority));
}

Status issue(const NodeFlags& flags) {
  const rpc::Role role = flags.role == "coordinator" ? rpc::Role::coordinator : rpc::Role::node;
  ASSIGN_OR_RETURN(const std::filesystem::path folder,
                   rpc::issue(flags.authority, {.identity = {role, flags.name},
                                                .ends_s = int64_t{flags.days} * 86400}));
  return print(
      fmt::format("{}: {}, for {} days. Carry the folder to that machine; there it is "
                  "--certificates\n",
                  folder.string(), to_string(rpc::Identity{role, flags.name}), flags.days));
}

}  // namespace

void add_node_verbs(CLI::App& app, NodeFlags& flags) {
  CLI::App& node = *app.add_subcommand("node", "make this machine a node of a cluster");
  actors::NodeOptions& o = flags.node;
  node.add_option(
          "--join", o.join,
          "HOST:PORT, where `chainpump serve --listen` takes nodes in; of several that share "
          "a store, each")
      ->delimiter(',')
      ->required();
  node.add_option("--certificates", o.certificates, "the folder that `cert issue` made for it")
      ->required();
  node.add_option("--listen", o.listen,
                  "its own address for the cluster; the one that leads there if not given");
  node.add_option("--data-network", o.data_network,
                  "the interface or network (eth1, 10.0.0.0/24) that is trusted with links between "
                  "stages; they are not encrypted");
  node.add_option("--labels", o.labels,
                  "words by which graph files may ask for it, beside its name")
      ->delimiter(',');
  node.add_option("--models", o.models,
                  "a folder of model files that are not at the path they have where `serve` runs; "
                  "what is in neither is fetched");

  CLI::App& cert = *app.add_subcommand("cert", "certificates for a cluster's machines");
  cert.require_subcommand(1);
  CLI::App& init = *cert.add_subcommand("init", "make the authority of a cluster");
  CLI::App& issue = *cert.add_subcommand("issue", "make a certificate for one machine");
  for (CLI::App* verb : {&init, &issue})
    verb->add_option("folder", flags.authority, "the authority's folder")->required();
  issue.add_option("name", flags.name, "the machine's name in the cluster")->required();
  issue.add_option("--role", flags.role, "coordinator: for `serve`; node: for `node`")
      ->check(CLI::IsMember({"coordinator", "node"}))
      ->capture_default_str();
  issue.add_option("--days", flags.days, "for how long it is valid")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
}

int run_node(NodeFlags& flags) {
  ::signal(SIGPIPE, SIG_IGN);
  const Result<std::filesystem::path> cache = panel_cache_folder();
  if (!cache.ok()) return ended(cache.error());
  flags.node.cache_folder = cache->string();
  flags.node.weights = weights_folder().string();
  flags.node.machine = machine_profile();
  // Ranks need not share our folder.
  std::error_code ignored;
  for (std::string* path : {&flags.node.certificates, &flags.node.models})
    if (!path->empty()) *path = std::filesystem::absolute(*path, ignored).string();
  return ended(actors::run_node(flags.node));
}

int run_cert(const CLI::App& verb, const NodeFlags& flags) {
  return ended(verb.got_subcommand("init") ? init(flags) : issue(flags));
}

}  // namespace chainpump::cli
