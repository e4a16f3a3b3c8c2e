// The `chainpump` command: verbs and flags; each verb's work is in its own file.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <new>
#include <system_error>

#include "actors/rank.h"
#include "actors/service_process.h"
#include "base/version.h"
#include "cli/batch.h"
#include "cli/bench_kernels.h"
#include "cli/bench_link.h"
#include "cli/bench_pipeline.h"
#include "cli/bench_serve.h"
#include "cli/change.h"
#include "cli/chaos.h"
#include "cli/chaos_flags.h"
#include "cli/cluster_flags.h"
#include "cli/deploy_flags.h"
#include "cli/drain.h"
#include "cli/exit_status.h"
#include "cli/graph_commands.h"
#include "cli/inspect.h"
#include "cli/machine.h"
#include "cli/node.h"
#include "cli/plan_nodes.h"
#include "cli/quantize.h"
#include "cli/run.h"
#include "cli/score.h"
#include "cli/serve.h"
#include "cli/status.h"
#include "cli/top.h"
#include "cli/trace.h"
#include "cli/usage.h"
#include "models/llama/profile.h"

namespace chainpump::cli {
namespace {

struct Flags {
  DeployFlags run_deploy;
  RunOptions run;
  DeployFlags score_deploy;
  ScoreOptions score;
  DeployFlags batch_deploy;
  BatchOptions batch;
  DeployFlags plan_deploy;
  DeployFlags serve_deploy;
  GatewayOptions serve;
  std::vector<std::string> serve_arguments;  // as they were typed
  StatusOptions status;
  TopOptions top;
  DrainOptions drain;
  ChangeOptions change;
  TraceOptions trace;
  GraphCommandOptions plan;
  GraphCommandOptions validate;
  InspectOptions inspect;
  QuantizeVerbOptions quantize;
  BenchLinkOptions bench_link;
  BenchKernelsOptions bench_kernels;
  BenchPipelineOptions bench_pipeline;
  DeployFlags bench_serve_deploy;
  BenchServeOptions bench_serve;
  ChaosOptions chaos;
  std::string explain_key;
  std::string rank_label;
  actors::RankTerms rank_terms;
  NodeFlags node;
  std::string service_folder;  // of agent and coordinator
  std::string service_plan;
  std::string output = "table";
};

void add_sampling_flags(CLI::App& verb, RunOptions& run) {
  graph::SamplingParams& s = run.sampling;
  s.max_new_tokens = 256;
  verb.add_option("-n,--max-tokens", s.max_new_tokens, "new tokens at most")->capture_default_str();
  verb.add_option("--temperature", s.temperature, "0: always the likeliest token")
      ->capture_default_str();
  verb.add_option("--top-p", s.top_p, "sample from the likeliest tokens of this mass")
      ->capture_default_str();
  verb.add_option("--top-k", s.top_k, "sample from the K likeliest tokens; 0: all")
      ->capture_default_str();
  verb.add_option("--min-p", s.min_p, "drop tokens less likely than this share of the likeliest")
      ->capture_default_str();
  verb.add_option("--repetition-penalty", s.repetition_penalty,
                  "above 1: tokens of prompt and output become less likely")
      ->capture_default_str();
  verb.add_option("--presence-penalty", s.presence_penalty,
                  "taken off the logit of each token that is in the output")
      ->capture_default_str();
  verb.add_option("--frequency-penalty", s.frequency_penalty,
                  "the same for each time that it is there")
      ->capture_default_str();
  verb.add_option("--seed", run.seed, "makes sampling repeatable; drawn if not given")
      ->check(CLI::Validator(is_seed, ""));
  verb.add_option("--stop", s.stop, "ends the text before this string; may be given several times");
  verb.add_flag("--ignore-eos", s.ignore_eos, "go on after the model's end token");
}

void add_run(CLI::App& app, Flags& flags) {
  CLI::App& verb = *app.add_subcommand("run", "run a prompt, or chat on a terminal");
  RunOptions& run = flags.run;
  add_deploy_flags(verb, flags.run_deploy);
  auto* prompt = verb.add_option("-p,--prompt", run.prompt, "the prompt; - reads standard input");
  auto* file = verb.add_option("--prompt-file", run.prompt_file, "a file with the prompt");
  auto* ids = verb.add_option("--prompt-ids", run.prompt_ids, "the prompt's token ids: 1,2,3");
  prompt->excludes(file)->excludes(ids);
  file->excludes(ids);
  verb.add_option("--system", run.system, "the chat's system message");
  auto* chat = verb.add_flag("--chat", run.chat, "demand the model's chat template");
  verb.add_flag("--raw", run.raw, "the prompt as it is, without a template")->excludes(chat);
  add_sampling_flags(verb, run);
  verb.add_option("-o", flags.output, "table (text as it is made, then a summary) or json")
      ->check(CLI::IsMember({"table", "json"}));
}

/// The verbs about services. `gateway` is what `serve` starts, with its own arguments.
void add_services(CLI::App& app, Flags& flags) {
  CLI::App& serve = *app.add_subcommand("serve", "keep a deployment up for run, score and others");
  CLI::App& gateway = *app.add_subcommand("gateway", "")->group("");
  for (CLI::App* verb : {&serve, &gateway}) {
    add_plan_flags(*verb, flags.serve_deploy);
    verb->add_option("--drain", flags.serve.drain_s,
                     "seconds that requests may take to end once it is told to")
        ->check(CLI::Range(0, 86400))
        ->capture_default_str();
    add_cluster_flags(*verb, flags.serve.cluster);
  }
  CLI::App& status = *app.add_subcommand("status", "what the services of this machine do");
  status.add_option("name", flags.status.name, "a service's name; all if not given");
  status.add_option("-o", flags.output, "table, json or yaml")
      ->check(CLI::IsMember({"table", "json", "yaml"}));
  add_drain(app, flags.drain);
  add_change_verbs(app, flags.change, flags.output);
  CLI::App& trace = *app.add_subcommand("trace", "what the stages of a service do, for Perfetto");
  trace.add_option("name", flags.trace.name, "a service's name; the only one if not given");
  trace.add_option("-d", flags.trace.duration, "for how long: 5s, 500ms")->capture_default_str();
  trace.add_option("-o", flags.trace.output, "the file to write")->capture_default_str();
  CLI::App& top = *app.add_subcommand("top", "the stages of a service as they work");
  top.add_option("name", flags.top.name, "a service's name; the only one if not given");
  top.add_option("--interval", flags.top.interval_s, "seconds between two looks")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  top.add_option("-n", flags.top.num_views,
                 "views to show; else on a terminal until Ctrl-C, elsewhere one")
      ->check(CLI::Range(1, 1 << 30));
}

void add_quantize(CLI::App& app, QuantizeVerbOptions& options) {
  CLI::App& verb =
      *app.add_subcommand("quantize", "write a GGUF file with weights of another type");
  verb.footer(quantize_help());
  verb.add_option("in", options.input, "a GGUF file (llama architecture)")->required();
  verb.add_option("out", options.output, "the file to make")->required();
  verb.add_option("--type", options.type, "the weights' type, see below")->required();
  verb.add_option("--threads", options.num_threads,
                  "threads to compute with; all cores if not given")
      ->check(CLI::Range(1, 1024));
  verb.add_flag("--force", options.replace, "replace the file to make if it exists");
}

void add_bench_serve(CLI::App& verb, Flags& flags) {
  BenchServeOptions& o = flags.bench_serve;
  add_deploy_flags(verb, flags.bench_serve_deploy);
  verb.add_option("--rate", o.requests_per_second, "requests per second, on average")
      ->check(CLI::Range(1e-3, 1e6))
      ->capture_default_str();
  verb.add_option("--requests", o.num_requests, "how many")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  verb.add_option("--mix", o.mix,
                  "their lengths: short, chat, long, mixed, or WEIGHT:PROMPT/OUTPUT,... in tokens")
      ->capture_default_str();
  verb.add_option("--seed", o.seed, "the same seed is the same load")
      ->check(CLI::Validator(is_seed, ""))
      ->capture_default_str();
  verb.add_option("--slo-ttft", o.level.ttft_ms,
                  "a good answer's first token comes within so many ms")
      ->check(CLI::PositiveNumber);
  verb.add_option("--slo-tpot", o.level.tpot_ms, "and each after it takes so many ms on average")
      ->check(CLI::PositiveNumber);
}

void add_others(CLI::App& app, Flags& flags) {
  CLI::App& score = *app.add_subcommand("score", "log-probabilities of given tokens, JSON lines");
  add_deploy_flags(score, flags.score_deploy);
  score.add_option("--full", flags.score.full, "write all log-probabilities to this .npy file");

  CLI::App& batch = *app.add_subcommand("batch", "answer a file of requests, OpenAI's batch lines");
  add_deploy_flags(batch, flags.batch_deploy);
  batch.add_option("in", flags.batch.input, "the requests, a file of JSON lines")->required();
  batch.add_option("out", flags.batch.output, "the answers; a run that was cut short goes on")
      ->required();
  batch.add_option("--priority", flags.batch.terms.priority, "higher goes first; others' is 0")
      ->check(CLI::Range(-gateway::kPriorityMax, gateway::kPriorityMax))
      ->capture_default_str();
  batch.add_option("--tenant", flags.batch.terms.tenant, "whose share of the service it takes");

  CLI::App& validate = *app.add_subcommand("validate", "check a graph file");
  validate.add_option("graph", flags.validate.graph, "a graph file, or 'demo'")->required();
  CLI::App& plan =
      *app.add_subcommand("plan", "show cuts, bytes and predicted times; runs nothing");
  add_plan_flags(plan, flags.plan_deploy);
  CLI::App& inspect = *app.add_subcommand("inspect", "list what a weights file holds");
  inspect.add_option("file", flags.inspect.file, "a GGUF file")->required();
  for (CLI::App* verb : {&validate, &plan})
    verb->add_option("-o", flags.output, "table, json or yaml")
        ->check(CLI::IsMember({"table", "json", "yaml"}));
  inspect.add_option("-o", flags.output, "table or json")->check(CLI::IsMember({"table", "json"}));

  CLI::App& explain = *app.add_subcommand("explain", "explain a key of the graph file");
  explain.add_option("key", flags.explain_key, "for example kv.type; none lists all");

  CLI::App& bench = *app.add_subcommand("bench", "measure this machine");
  bench.require_subcommand(1);
  CLI::App& link = *bench.add_subcommand("link", "our links beside ucx_perftest");
  link.add_option("--rounds", flags.bench_link.rounds)->check(CLI::Range(1, 100));
  CLI::App& kernels = *bench.add_subcommand("kernels", "our kernels beside the machine's limits");
  BenchKernelsOptions& k = flags.bench_kernels;
  kernels.add_option("graph", k.graph, "a graph file, or 'demo': its model's shapes");
  kernels.add_option("--model", k.model_path, "the model, a GGUF file");
  kernels.add_option("--threads", k.num_threads, "compute threads")->check(CLI::Range(1, 1024));
  kernels.add_option("--type", k.types, "a weight type, as q4_1; may be given several times");
  CLI::App& pipeline = *bench.add_subcommand("pipeline", "the engine round stages that sleep");
  pipeline.add_option("--rounds", flags.bench_pipeline.rounds)->check(CLI::Range(1, 100));
  CLI::App& serve = *bench.add_subcommand("serve", "a service under requests that do not wait");
  add_bench_serve(serve, flags);
  for (CLI::App* verb : {&link, &kernels, &pipeline, &serve})
    verb->add_option("-o", flags.output, "table or json")->check(CLI::IsMember({"table", "json"}));

  // A rank's program; started by the node agent only.
  CLI::App& rank = *app.add_subcommand("rank", "")->group("");
  rank.add_option("label", flags.rank_label);
  // The programs of a service's processes; started by its supervisor only.
  for (const char* name : {"agent", "coordinator"})
    app.add_subcommand(name, "")->group("")->add_option("--dir", flags.service_folder)->required();
  actors::RankTerms& terms = flags.rank_terms;
  for (CLI::App* verb : {&rank, app.get_subcommand("agent")}) {  // actors/rank.h
    verb->add_option("--node", terms.node);
    verb->add_option("--data-address", terms.data_address);
    verb->add_option("--certificates", terms.certificates);
    verb->add_option("--models", terms.models);
    verb->add_option("--cache-folder", terms.cache_folder);
    verb->add_option("--weights", terms.weights);
  }
  app.get_subcommand("coordinator")->add_option("--plan", flags.service_plan)->required();
}

/// Whoever started us may have closed standard descriptors: none may become a socket or a file of
/// ours, which would then be printed to. Opened the wrong way round, so that using one is an error.
void keep_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd)
    if (::fcntl(fd, F_GETFD) == -1 && ::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
      ::_exit(5);
}

/// Reading a mapped file past an end that has moved, or on a disk that fails.
void on_bus_error(int) {
  constexpr std::string_view kWords =
      "chainpump: a file in use was cut short or cannot be read (SIGBUS)\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kWords.data(), kWords.size());
  ::_exit(5);
}

void set_signals() {
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error like a full disk
  ::signal(SIGBUS, on_bus_error);
}

int plan_verb(Flags& flags) {
  const DeployOptions deploy = deploy_options(flags.plan_deploy);
  const auto fail = [](const Error& error) {
    std::fprintf(stderr, "chainpump: %s\n", error.message.c_str());
    return exit_status(error.code);
  };
  const Result<graph::Graph> graph = find_graph(deploy.graph);
  if (!graph.ok()) return fail(graph.error());
  const Result<std::string> path = find_model(deploy.graph, *graph, deploy.overrides);
  if (!path.ok()) return fail(path.error());
  const Result<models::GgufFile> model = models::GgufFile::open(*path);
  if (!model.ok()) return fail(model.error());
  const Result<graph::ModelProfile> profile = models::read_profile(*model);
  if (!profile.ok()) return fail(profile.error());
  flags.plan.graph = deploy.graph;
  const Result<PlanNodes> over = find_plan_nodes(*graph);
  if (!over.ok()) return fail(over.error());
  return run_plan(flags.plan, deploy.overrides, *profile, over->nodes, over->note);
}

int run_verb(const CLI::App& app, Flags& flags) {
  const bool json = flags.output == "json";
  flags.run.json = flags.plan.json = flags.validate.json = flags.bench_link.json =
      flags.bench_kernels.json = flags.bench_pipeline.json = flags.bench_serve.json =
          flags.chaos.json = json;
  flags.plan.yaml = flags.validate.yaml = flags.output == "yaml";
  if (app.got_subcommand("rank"))
    return actors::run_rank(UniqueFd(actors::kControlFd), flags.rank_terms);
  if (app.got_subcommand("serve") || app.got_subcommand("gateway")) {
    flags.serve.deploy = deploy_options(flags.serve_deploy);
    return app.got_subcommand("serve") ? run_serve(flags.serve, flags.serve_arguments)
                                       : run_gateway(flags.serve);
  }
  if (app.got_subcommand("status")) {
    flags.status.output = flags.output;
    return run_status(flags.status);
  }
  if (app.got_subcommand("agent")) return actors::run_agent(flags.service_folder, flags.rank_terms);
  if (app.got_subcommand("node")) return run_node(flags.node);
  if (app.got_subcommand("cert")) return run_cert(*app.get_subcommand("cert"), flags.node);
  if (app.got_subcommand("coordinator"))
    return actors::run_coordinator(flags.service_folder, flags.service_plan);
  if (app.got_subcommand("trace")) return run_trace(flags.trace);
  if (app.got_subcommand("top")) return run_top(flags.top);
  if (app.got_subcommand("drain")) return run_drain(flags.drain);
  flags.change.output = flags.output;
  if (app.got_subcommand("diff")) return run_diff(flags.change);
  if (app.got_subcommand("apply")) return run_apply(flags.change);
  if (app.got_subcommand("scale")) return run_scale(flags.change);
  if (app.got_subcommand("run")) {
    flags.run.deploy = deploy_options(flags.run_deploy);
    return run_run(std::move(flags.run));
  }
  if (app.got_subcommand("score")) {
    flags.score.deploy = deploy_options(flags.score_deploy);
    std::ios::sync_with_stdio(false);  // so that a read error is told from the end
    return run_score(flags.score, std::cin, std::cout);
  }
  if (app.got_subcommand("batch")) {
    flags.batch.deploy = deploy_options(flags.batch_deploy);
    return run_batch(flags.batch);
  }
  if (app.got_subcommand("chaos")) return run_chaos(flags.chaos);
  if (app.got_subcommand("validate")) return run_validate(flags.validate);
  if (app.got_subcommand("plan")) return plan_verb(flags);
  if (app.got_subcommand("explain")) return run_explain(flags.explain_key);
  if (app.got_subcommand("quantize")) return run_quantize(flags.quantize);
  if (app.got_subcommand("inspect")) {
    flags.inspect.output = json ? OutputFormat::json : OutputFormat::table;
    return run_inspect(flags.inspect);
  }
  if (app.get_subcommand("bench")->got_subcommand("kernels"))
    return run_bench_kernels(flags.bench_kernels);
  if (app.get_subcommand("bench")->got_subcommand("pipeline"))
    return run_bench_pipeline(flags.bench_pipeline);
  if (app.get_subcommand("bench")->got_subcommand("serve")) {
    flags.bench_serve.deploy = deploy_options(flags.bench_serve_deploy);
    return run_bench_serve(flags.bench_serve);
  }
  return run_bench_link(flags.bench_link);
}

}  // namespace
}  // namespace chainpump::cli

int main(int argc, char** argv) {
  using namespace chainpump;
  ::prctl(PR_SET_NAME, "chainpump");  // ours are started as /proc/self/exe, and would be named so
  cli::keep_standard_descriptors();
  cli::set_signals();
  CLI::App app("Serves large models over a chain of stage processes.", "chainpump");
  app.set_version_flag("--version", fmt::format("chainpump {}+{}", release(), commit()));
  app.require_subcommand(1);
  cli::Flags flags;
  if (argc > 2) flags.serve_arguments.assign(argv + 2, argv + argc);
  cli::add_run(app, flags);
  cli::add_services(app, flags);
  cli::add_others(app, flags);
  cli::add_node_verbs(app, flags.node);
  cli::add_chaos(app, flags.chaos, flags.output);
  cli::add_quantize(app, flags.quantize);
  cli::refuse_empty_numbers(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return cli::usage_exit(app, error);
  }
  try {
    return cli::run_verb(app, flags);
  } catch (const std::bad_alloc&) {
    std::fputs("chainpump: out of memory\n", stderr);
  } catch (const std::system_error& error) {  // a thread that cannot be started
    std::fprintf(stderr, "chainpump: %s\n", error.what());
  }
  return cli::exit_status(ErrorCode::no_room);
}
