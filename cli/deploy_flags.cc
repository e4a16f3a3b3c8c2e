#include "cli/deploy_flags.h"

namespace chainpump::cli {

void add_plan_flags(CLI::App& verb, DeployFlags& flags) {
  graph::PlanOverrides& o = flags.options.overrides;
  verb.add_option("graph", flags.options.graph, "a graph file, or 'demo'")->required();
  verb.add_option("--model", o.model_path, "the model, a GGUF file");
  verb.add_option("--stages", o.stages, "cut the model into N stages")->check(CLI::Range(1, 4096));
  verb.add_option("--threads", o.threads, "compute threads of each stage")
      ->check(CLI::Range(1, 1024));
  verb.add_option("--context", o.context_tokens, "longest sequence, in tokens")
      ->check(CLI::Range(1, 1 << 30));
  verb.add_option("--prefill-chunk", o.prefill_chunk, "prompt tokens in one microbatch")
      ->check(CLI::Range(1, 1 << 20));
  verb.add_option("--activations", flags.activations, "f32, or int8 where weights are quantised")
      ->check(CLI::IsMember({"int8", "f32"}));
  verb.add_option("--kv-type", flags.kv_type, "element type of the KV cache")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "int8"}));
  verb.add_option("--transport", flags.transport, "links between stages")
      ->check(CLI::IsMember({"auto", "tcp", "shared_memory"}));
  verb.add_option("--spin", flags.spin, "how stages wait for frames")
      ->check(CLI::IsMember({"auto", "always", "never"}));
}

void add_deploy_flags(CLI::App& verb, DeployFlags& flags) {
  add_plan_flags(verb, flags);
  verb.add_flag("--in-process", flags.options.in_process,
                "run the stages as threads of this process, for debugging");
  verb.add_option("--service", flags.service,
                  "auto: be a client of the service of this graph, if one runs; none: run alone")
      ->check(CLI::IsMember({"auto", "none"}));
}

DeployOptions deploy_options(const DeployFlags& flags) {
  DeployOptions options = flags.options;
  options.use_service = flags.service == "auto";
  graph::PlanOverrides& o = options.overrides;
  if (!flags.activations.empty()) o.exact_activations = flags.activations == "f32";
  if (!flags.kv_type.empty()) o.kv_type = dtype_from_name(flags.kv_type);
  if (!flags.transport.empty())
    o.transport = flags.transport == "tcp"             ? graph::TransportKind::tcp
                  : flags.transport == "shared_memory" ? graph::TransportKind::shared_memory
                                                       : graph::TransportKind::automatic;
  if (!flags.spin.empty())
    o.spin = flags.spin == "always"  ? graph::SpinPolicy::always
             : flags.spin == "never" ? graph::SpinPolicy::never
                                     : graph::SpinPolicy::automatic;
  return options;
}

}  // namespace chainpump::cli
