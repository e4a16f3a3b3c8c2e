#include "cli/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/version.h"
#include "cli/deploy.h"
#include "cli/exit_status.h"
#include "cli/graph_commands.h"
#include "cli/kernel_figures.h"
#include "models/llama/config.h"

namespace chainpump::cli {
namespace {

using kernels::cpu::MachineRates;

struct Product {
  const char* name;
  int64_t rows;
  int64_t cols;
};

struct ModelShapes {
  std::string name;
  LayerShape layer;
  std::vector<Product> products;  // the last one is the head
  int64_t step_bytes;             // of weights that a decode step reads
};

constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                            DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                            DType::q4_k, DType::q5_k, DType::q6_k};

ModelShapes llama_8b() {
  return {"llama-8b",
          {4096, 14336, 32, 8, 128},
          {{"q, o", 4096, 4096},
           {"k, v", 1024, 4096},
           {"gate, up", 14336, 4096},
           {"down", 4096, 14336},
           {"head", 128256, 4096}},
          4'518'000'000};  // all but the embedding in blocks of 32 with 4 bits and a scale
}

int64_t step_bytes_of(const models::GgufFile& file) {
  int64_t bytes = 0;
  const bool own_head = file.find_tensor("output.weight") != nullptr;
  for (const models::GgufTensor& tensor : file.tensors())
    if (!own_head || tensor.name != "token_embd.weight")
      bytes += static_cast<int64_t>(tensor.bytes.size());
  return bytes;
}

Result<ModelShapes> shapes_of_model(const BenchKernelsOptions& options) {
  ASSIGN_OR_RETURN(const graph::Graph graph, find_graph(options.graph));
  graph::PlanOverrides overrides;
  if (!options.model_path.empty()) overrides.model_path = options.model_path;
  ASSIGN_OR_RETURN(const std::string path, find_model(options.graph, graph, overrides));
  ASSIGN_OR_RETURN(const models::GgufFile file, models::GgufFile::open(path));
  ASSIGN_OR_RETURN(const models::LlamaConfig config, models::read_llama_config(file));
  const int64_t hidden = config.hidden_size;
  return ModelShapes{
      config.name.empty() ? path : config.name,
      {hidden, config.feed_forward_size, config.num_heads, config.num_kv_heads, config.head_dim},
      {{"q, o", config.q_size(), hidden},
       {"k, v", config.kv_size(), hidden},
       {"gate, up", config.feed_forward_size, hidden},
       {"down", hidden, config.feed_forward_size},
       {"head", config.vocabulary_size, hidden}},
      step_bytes_of(file)};
}

Result<std::vector<DType>> chosen_types(const BenchKernelsOptions& options) {
  std::vector<DType> types;
  for (const std::string& name : options.types) {
    const std::optional<DType> type = dtype_from_name(name);
    if (!type || std::find(std::begin(kTypes), std::end(kTypes), *type) == std::end(kTypes)) {
      return make_error(ErrorCode::invalid_argument, "'{}' is no weight type", name);
    }
    types.push_back(*type);
  }
  if (types.empty()) types.assign(std::begin(kTypes), std::end(kTypes));
  return types;
}

/// Prints as it goes, as the whole takes a minute or more.
class Report {
 public:
  Report(bool json, kernels::cpu::Isa isa, int num_threads) : json_(json) {
    document_ = {{"release", fmt::format("{}+{}", release(), commit())},
                 {"isa", to_string(isa)},
                 {"threads", num_threads},
                 {"rows", nlohmann::ordered_json::array()}};
    if (json_) return;
    fmt::print("{} threads, {}, chainpump {}+{}\n", num_threads, to_string(isa), release(),
               commit());
  }

  void begin(const std::string& model, std::string_view part, const MachineRates& rates) {
    model_ = model;
    if (json_) return;
    fmt::print("\n{} {}: read {:.1f} GB/s, int8 {:.0f}, bf16 {:.0f}, f32 {:.0f} Gop/s\n", model,
               part, rates.read_bytes_per_second / 1e9, rates.int8_ops_per_second / 1e9,
               rates.bf16_ops_per_second / 1e9, rates.f32_ops_per_second / 1e9);
  }

  void add(const KernelFigure& f) {
    nlohmann::ordered_json ratio;  // null without a bound
    if (f.bound > 0) ratio = f.achieved / f.bound;
    document_["rows"].push_back({{"model", model_},
                                 {"operation", f.operation},
                                 {"type", to_string(f.type)},
                                 {"shape", f.shape},
                                 {"tokens", f.num_tokens},
                                 {"achieved", f.achieved},
                                 {"bound", f.bound},
                                 {"unit", f.unit},
                                 {"ratio", ratio},
                                 {"gops", f.gops}});
    if (json_) return;
    fmt::print("  {:<10} {:<5} {:<15} {:>4} tokens {:>8.{}f}", f.operation, to_string(f.type),
               f.shape, f.num_tokens, f.achieved, f.bound > 0 ? 1 : 2);
    if (f.bound > 0)
      fmt::print(" of {:>6.1f} {:<6} {:.2f}\n", f.bound, f.unit, f.achieved / f.bound);
    else
      fmt::print(" {}\n", f.unit);
    std::fflush(stdout);
  }

  void end() const {
    if (json_) fmt::print("{}\n", document_.dump(2));
  }

 private:
  bool json_;
  std::string model_;
  nlohmann::ordered_json document_;
};

void bench_layer(const KernelBench& bench, const ModelShapes& model, Report& report) {
  const MachineRates rates = measure_machine(bench.isa, *bench.team);
  report.begin(model.name, "layer", rates);
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::int8}) {
    for (const int32_t context : {512, 4096})
      report.add(measure_attention(bench, rates, model.layer, type, context, 256));
    for (const int32_t context : {128, 8192})
      report.add(measure_attention(bench, rates, model.layer, type, context, 1));
  }
  for (const int64_t num_tokens : {1, 256}) {
    for (const KernelFigure& figure : measure_rows(bench, model.layer, num_tokens))
      report.add(figure);
  }
  for (const KernelFigure& figure :
       measure_sampling(bench, rates, model.products.back().rows, model.step_bytes))
    report.add(figure);
}

void bench_products(const KernelBench& bench, const ModelShapes& model, DType type,
                    Report& report) {
  const MachineRates rates = measure_machine(bench.isa, *bench.team);
  report.begin(model.name, to_string(type), rates);
  for (const Product& p : model.products) {
    if (p.cols % info(type).block_elements != 0) continue;  // such a file cannot be
    for (const KernelFigure& figure :
         measure_product(bench, rates, p.name, type, p.rows, p.cols, {1, 2, 4, 16, 512})) {
      report.add(figure);
    }
  }
}

Status bench(const BenchKernelsOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<DType> types, chosen_types(options));
  ASSIGN_OR_RETURN(const ModelShapes model, shapes_of_model(options));
  const char* forced = std::getenv("CHAINPUMP_ISA");
  ASSIGN_OR_RETURN(const kernels::cpu::Isa isa,
                   kernels::cpu::choose_isa(forced == nullptr ? "" : forced));
  std::vector<int> cores;
  for (int i = 0; i < options.num_threads; ++i) cores.push_back(i);
  ASSIGN_OR_RETURN(
      kernels::cpu::Team team,
      kernels::cpu::Team::create({.num_threads = options.num_threads, .cores = cores}));
  const KernelBench bench{isa, &team};
  Report report(options.json, isa, options.num_threads);
  for (const ModelShapes& shapes : {model, llama_8b()}) {
    for (const DType type : types) bench_products(bench, shapes, type, report);
    bench_layer(bench, shapes, report);
  }
  report.end();
  return ok_status();
}

}  // namespace

int run_bench_kernels(const BenchKernelsOptions& options) {
  const Status status = bench(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", status.error().message.c_str());
  return exit_status(status.error().code);
}

}  // namespace chainpump::cli
