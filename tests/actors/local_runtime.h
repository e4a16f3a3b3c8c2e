// Plans of a tiny model brought to life in this process, and what their sequences are told. For the
// tests of the runtime.
#pragma once

#include <boost/test/unit_test.hpp>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/runtime.h"
#include "graph/demo_graph.h"
#include "graph/planner.h"
#include "models/gguf/gguf.h"
#include "models/llama/profile.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump::actors {

inline constexpr Duration kPatience = std::chrono::seconds(20);  // sanitizers are slow

/// A tiny model in a folder of its own.
struct Model {
  TemporaryFolder temporary;
  std::filesystem::path folder = temporary.path();
  Model() {
    fakes::TinyShape shape;
    shape.context = 4096;
    fakes::TinyLlama(shape, 5).write(path());
  }
  std::string path() const { return folder / "tiny.gguf"; }
};

inline graph::Plan plan_for(const std::string& path, int32_t stages) {
  const auto graph = graph::parse_graph_text(graph::kDemoGraph, "demo");
  BOOST_REQUIRE_MESSAGE(graph.ok(), fakes::why(graph));
  const auto file = models::GgufFile::open(path);
  BOOST_REQUIRE_MESSAGE(file.ok(), fakes::why(file));
  const auto profile = models::read_profile(*file);
  BOOST_REQUIRE_MESSAGE(profile.ok(), fakes::why(profile));
  graph::PlanOverrides overrides;
  overrides.stages = stages;
  overrides.model_path = path;
  overrides.transport = graph::TransportKind::loopback;
  overrides.prefill_chunk = 16;
  const auto plan =
      make_plan(*graph, *profile, graph::nominal_machine(2, int64_t{4} << 30), overrides);
  BOOST_REQUIRE_MESSAGE(plan.ok(), fakes::why(plan));
  return *plan;
}

inline std::unique_ptr<Runtime> start(const graph::Plan& plan) {
  RuntimeOptions options;
  options.in_process = true;
  options.spin_between_ops = false;
  auto runtime = Runtime::start(plan, std::move(options));
  BOOST_REQUIRE_MESSAGE(runtime.ok(), fakes::why(runtime));
  return std::move(*runtime);
}

inline std::unique_ptr<Runtime> start_ready(const graph::Plan& plan) {
  auto runtime = start(plan);
  const Status ready = runtime->wait_ready(kPatience);
  BOOST_REQUIRE_MESSAGE(ready.ok(), fakes::why(ready));
  return runtime;
}

/// What one sequence was told, from the runtime's threads.
struct Listener {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<TokenId> tokens;
  std::vector<graph::ScoreResult> scores;
  std::optional<Result<Ok>> end;
  int num_ends = 0;

  SequenceCallbacks callbacks() {
    return {
        .on_token =
            [this](const graph::TokenResult& token) {
              update([&] { tokens.push_back(token.token); });
            },
        .on_score =
            [this](const graph::ScoreResult& score) { update([&] { scores.push_back(score); }); },
        .on_end = [this](Result<Ok> how) { update([&] { end = how, ++num_ends; }); }};
  }
  Result<Ok> wait_end() {
    BOOST_REQUIRE(wait([&] { return end.has_value(); }));
    return *end;
  }
  bool wait_tokens(size_t count) {
    return wait([&] { return tokens.size() >= count || end; });
  }

 private:
  template <typename F>
  void update(F&& change) {
    const std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
  template <typename F>
  bool wait(F&& done) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, done);
  }
};

inline SequenceRequest request(int32_t num_prompt, int32_t max_new, float temperature = 0.0f) {
  SequenceRequest request;
  for (int32_t i = 0; i < num_prompt; ++i) request.prompt.push_back((i * 31 + i * i / 7) % 80);
  request.sampling.max_new_tokens = max_new;
  request.sampling.temperature = temperature;
  request.sampling.seed = 42;
  request.sampling.ignore_eos = true;
  return request;
}

inline std::vector<TokenId> generate(Runtime& runtime, SequenceRequest what) {
  Listener listener;
  runtime.submit(std::move(what), kPatience, listener.callbacks());
  const Result<Ok> end = listener.wait_end();
  BOOST_REQUIRE_MESSAGE(end.ok(), fakes::why(end));
  return listener.tokens;
}

}  // namespace chainpump::actors
