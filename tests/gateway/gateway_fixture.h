// A gateway's core over an engine that does what the test says.
#pragma once

#include <boost/test/unit_test.hpp>
#include <memory>
#include <string>
#include <vector>

#include "gateway/core.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/why.h"
#include "tests/models/fake_tokenizer.h"

namespace chainpump::gateway {

using fakes::why;
using graph::FinishReason;

/// Pieces that a stop string can run across, a broken character, and an end token.
inline const std::vector<std::string> kPieces = {"a", "b", "ab", "c", "\xc3", "\xa9", "<|end|>"};

struct Gateway {
  ManualClock clock;  // outlives what the engine holds
  fakes::FakeEngine engine;
  std::unique_ptr<Core> core;
  int wakes = 0;

  explicit Gateway(CoreOptions options = {}, bool ready = true, int32_t max_queued = 1024) {
    DeploymentInfo info;
    info.graph_name = "test";
    info.plan.context_tokens = 20;
    info.plan.max_sequences = 1;
    info.plan.max_queued = max_queued;
    core = std::make_unique<Core>(
        engine,
        PromptEncoder(std::make_unique<models::FakeTokenizer>(kPieces, std::vector<TokenId>{6}),
                      make_error(ErrorCode::not_found, "no template")),
        info, options, clock);
    if (ready) core->set_ready("ready");
  }
  static GenerateRequest request() {
    GenerateRequest request;
    request.prompt = TokenIds{0, 1, 2};
    return request;
  }
  Result<std::shared_ptr<Generation>> try_generate(const GenerateRequest& request) {
    return core->generate(request, [this] { ++wakes; });
  }
  std::shared_ptr<Generation> generate(const GenerateRequest& request = Gateway::request()) {
    auto generation = try_generate(request);
    BOOST_REQUIRE_MESSAGE(generation.ok(), why(generation));
    return *generation;
  }
};

inline ErrorCode code_of(const std::optional<Result<Usage>>& end) {
  BOOST_REQUIRE(end.has_value());
  BOOST_REQUIRE(!end->ok());
  return end->error().code;
}

}  // namespace chainpump::gateway
