#include "cli/cluster_flags.h"

namespace chainpump::cli {

void add_cluster_flags(CLI::App& verb, ClusterOptions& options) {
  CLI::Option* const listen =
      verb.add_option("--listen", options.listen,
                      "ADDRESS:PORT where other machines may join; needs --certificates");
  for (CLI::Option* option :
       {verb.add_option("--certificates", options.certificates,
                        "the folder of a certificate with --role coordinator"),
        verb.add_option("--data-network", options.data_network,
                        "the interface or network (eth1, 10.0.0.0/24) that is trusted with links "
                        "between stages; they are not encrypted"),
        verb.add_option("--nodes", options.num_nodes, "start when so many have joined")
            ->check(CLI::Range(0, 4096)),
        verb.add_option("--wait-nodes", options.wait_s, "seconds that they may take to join")
            ->check(CLI::Range(1, 86400))
            ->capture_default_str()})
    option->needs(listen);
  CLI::Option* const store = verb.add_option(
      "--store", options.store.address,
      "etcd://HOST:PORT[,HOST:PORT...]/PREFIX, shared with other `serve`s of the same graph: one "
      "leads, and another takes over");
  store->needs(listen);
  for (CLI::Option* option :
       {verb.add_option("--store-ca", options.store.authority,
                        "the authority (PEM) that certifies the store's servers: TLS"),
        verb.add_option("--store-cert", options.store.certificate,
                        "this machine's certificate (PEM) for the store"),
        verb.add_option("--store-key", options.store.key, "its key (PEM)")})
    option->needs(store);
}

}  // namespace chainpump::cli
