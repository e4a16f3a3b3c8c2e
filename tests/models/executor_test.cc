// The one law on the executor: equal bits for any cut, chunk, team, neighbours, and for replay; and
// that a microbatch which contradicts what a stage holds changes nothing.
#include <boost/test/unit_test.hpp>

#include <filesystem>

#include "models/npy.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump {
namespace {

using fakes::prompt_of;

struct Model {
  TemporaryFolder temporary;
  std::filesystem::path folder = temporary.path();
  fakes::TinyShape shape;
  explicit Model(DType weights = DType::q8_0) {
    shape.weights = weights;
    fakes::TinyLlama(shape, 5).write(path());
  }
  std::string path() const { return folder / "tiny.gguf"; }

  fakes::StageChain load(int32_t stages, int32_t threads, DType kv_type,
                         const std::string& cache_folder = {}, bool exact = false) const {
    fakes::ChainOptions options;
    options.num_layers = shape.layers;
    options.num_stages = stages;
    options.spec.num_threads = threads;
    options.spec.spin_between_ops = false;
    options.spec.kv_type = kv_type;
    options.spec.cache_folder = cache_folder;
    options.spec.exact_activations = exact;
    options.spec.num_kv_blocks = 40;
    options.spec.max_microbatch_tokens = 160;
    options.spec.max_sequences = 4;
    options.spec.context_tokens = 256;
    auto chain = fakes::StageChain::load(path(), options);
    BOOST_REQUIRE_MESSAGE(chain.ok(), fakes::why(chain));
    return std::move(*chain);
  }
};

graph::SequenceDescriptor request(uint64_t id, float temperature) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(id);
  descriptor.prompt = prompt_of(75, 3);
  descriptor.sampling.temperature = temperature;
  descriptor.sampling.seed = 99;
  descriptor.sampling.max_new_tokens = 24;
  descriptor.sampling.num_top_logprobs = 3;
  return descriptor;
}

/// Everything that one configuration says: greedy and seeded tokens, and scores.
struct Outcome {
  std::vector<graph::TokenResult> greedy;
  std::vector<graph::TokenResult> seeded;
  std::vector<graph::ScoreResult> scores;
  bool operator==(const Outcome&) const = default;
};

Outcome outcome(fakes::StageChain chain, int32_t chunk) {
  Outcome out;
  auto greedy = chain.generate(request(1, 0.0f), chunk);
  BOOST_REQUIRE_MESSAGE(greedy.ok(), fakes::why(greedy));
  auto seeded = chain.generate(request(1, 1.5f), chunk);
  BOOST_REQUIRE_MESSAGE(seeded.ok(), fakes::why(seeded));
  graph::SequenceDescriptor scored = request(1, 0.0f);
  scored.score.first_position = 10;
  auto scores = chain.score(scored, chunk);
  BOOST_REQUIRE_MESSAGE(scores.ok(), fakes::why(scores));
  BOOST_REQUIRE_EQUAL(greedy->size(), size_t{24});
  BOOST_REQUIRE_EQUAL(scores->size(), size_t{64});
  return {std::move(*greedy), std::move(*seeded), std::move(*scores)};
}

}  // namespace

BOOST_AUTO_TEST_CASE(cut_chunk_and_team_change_no_bit) {
  for (const DType weights : {DType::q8_0, DType::bf16, DType::f32}) {
    const Model model(weights);
    for (const DType kv : {DType::f32, DType::bf16, DType::f16, DType::int8}) {
      const Outcome expected = outcome(model.load(1, 1, kv), 0);
      BOOST_TEST((expected.greedy != expected.seeded));
      for (const int32_t stages : {1, 2, 3, 5}) {
        for (const int32_t chunk : {1, 7, 64, 0}) {
          const int32_t threads = 1 + (stages + chunk) % 2;  // both, over the grid
          BOOST_TEST_CONTEXT(to_string(weights) << " weights, " << to_string(kv) << " KV, "
                                                << stages << " stages, chunk " << chunk) {
            BOOST_TEST((outcome(model.load(stages, threads, kv), chunk) == expected));
          }
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(weights_from_the_cache_change_no_bit) {
  for (const DType weights : {DType::q8_0, DType::bf16, DType::f32}) {
    const Model model(weights);
    const std::string cache = model.folder / "panels";
    for (const bool exact : {false, true}) {
      const Outcome expected = outcome(model.load(1, 1, DType::f32, {}, exact), 0);
      // Only the first start packs, whatever the cuts; panels of f32 are exact either way.
      bool first = !(exact && weights == DType::f32);
      for (const int32_t stages : {2, 2, 3, 1}) {
        fakes::StageChain chain = model.load(stages, 1, DType::f32, cache, exact);
        for (size_t i = 0; i < chain.num_stages(); ++i) {
          const models::ExecutorStats stats = chain.stage(i).stats();
          BOOST_TEST(stats.cache_note == "");
          const int64_t panels = stats.weight_bytes_held * 9 / 10;  // the rest is vectors
          BOOST_TEST((first ? stats.weight_bytes_cached == 0 : stats.weight_bytes_cached > panels));
        }
        BOOST_TEST((outcome(std::move(chain), 0) == expected));
        first = false;
      }
    }
  }
}

// Contexts of several attention steps, which a team shares out within one head.
BOOST_AUTO_TEST_CASE(long_prompts_of_every_kv_type_keep_their_bits) {
  const Model model;
  graph::SequenceDescriptor descriptor = request(1, 1.5f);
  descriptor.prompt = prompt_of(230, 3);
  for (const DType kv : {DType::f32, DType::bf16, DType::f16, DType::int8}) {
    const auto expected = model.load(1, 1, kv).generate(descriptor, 150);
    BOOST_REQUIRE_MESSAGE(expected.ok(), fakes::why(expected));
    for (const int32_t chunk : {1, 31, 128}) {
      BOOST_TEST_CONTEXT(to_string(kv) << " KV, chunk " << chunk) {
        const auto made = model.load(1, 2, kv).generate(descriptor, chunk);
        BOOST_REQUIRE_MESSAGE(made.ok(), fakes::why(made));
        BOOST_TEST((*made == *expected));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(neighbours_change_no_bit) {
  const Model model;
  const auto alone = model.load(1, 1, DType::f32).generate(request(1, 1.5f), 0);
  BOOST_REQUIRE(alone.ok());
  for (const int32_t threads : {1, 2}) {
    fakes::StageChain chain = model.load(2, threads, DType::f32);
    // Two others: one mid-decode when ours begins, one in prefill beside our decode.
    graph::SequenceDescriptor other = request(7, 0.0f);
    other.prompt = prompt_of(40, 8);
    graph::SequenceDescriptor third = request(8, 0.7f);
    third.prompt = prompt_of(130, 21);
    chain.begin(other);
    auto first = chain.run({{other.id, other.prompt, true}});
    BOOST_REQUIRE(first.ok());
    TokenId other_token = first->tokens[0].token;
    const graph::SequenceDescriptor ours = request(1, 1.5f);
    chain.begin(ours);
    chain.begin(third);
    std::vector<graph::TokenResult> made;
    for (int32_t step = 0; step < 24; ++step) {
      std::vector<fakes::Feed> feeds;
      if (step < 20) feeds.push_back({other.id, {other_token}, true});
      feeds.push_back(made.empty() ? fakes::Feed{ours.id, ours.prompt, true}
                                   : fakes::Feed{ours.id, {made.back().token}, true});
      const auto at = static_cast<size_t>(step) * 10;
      if (at < third.prompt.size()) {
        const auto begin = third.prompt.begin() + static_cast<ptrdiff_t>(at);
        feeds.push_back({third.id, std::vector<TokenId>(begin, begin + 10), false});
      }
      const auto result = chain.run(feeds);
      BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
      for (const graph::TokenResult& token : result->tokens) {
        if (token.id == other.id) other_token = token.token;
        if (token.id == ours.id) made.push_back(token);
      }
    }
    BOOST_TEST((made == *alone));
  }
}

BOOST_AUTO_TEST_CASE(replay_as_prefill_equals_decode) {
  const Model model;
  fakes::StageChain chain = model.load(2, 1, DType::bf16);
  const auto whole = chain.generate(request(1, 1.5f), 0);
  BOOST_REQUIRE(whole.ok());
  for (const size_t kept : {size_t{1}, size_t{10}, size_t{23}}) {
    graph::SequenceDescriptor again = request(2, 1.5f);
    for (size_t i = 0; i < kept; ++i) again.generated.push_back((*whole)[i].token);
    const auto rest = chain.generate(again, 16);
    BOOST_REQUIRE_MESSAGE(rest.ok(), fakes::why(rest));
    BOOST_REQUIRE_EQUAL(rest->size(), whole->size() - kept);
    for (size_t i = 0; i < rest->size(); ++i) {
      graph::TokenResult expected = (*whole)[kept + i];
      expected.id = again.id;
      BOOST_TEST(((*rest)[i] == expected));
    }
  }
}

namespace {

/// A stage that holds sequence 1 (40 tokens, blocks 0 and 1), and a microbatch that would go on.
struct Held {
  Model model;
  fakes::StageChain chain = model.load(1, 1, DType::f32);
  graph::Microbatch next;

  Held() {
    graph::Microbatch first;
    first.id = MicrobatchId(1);
    first.descriptors.push_back(request(1, 0.0f));
    first.slices.push_back(
        {SequenceId(1), 0, prompt_of(40, 3), 0, {KvBlockId(0), KvBlockId(1)}, false});
    BOOST_REQUIRE(chain.run_raw(first).ok());
    const std::vector<TokenId> prompt = prompt_of(75, 3);
    next.id = MicrobatchId(2);
    next.slices.push_back(
        {SequenceId(1), 40, {prompt.begin() + 40, prompt.end()}, 2, {KvBlockId(2)}, true});
  }
  void refused(const graph::Microbatch& bad, std::string_view what) {
    const auto result = chain.run_raw(bad);
    BOOST_REQUIRE_MESSAGE(!result.ok(), what);
    BOOST_TEST_CONTEXT(result.error().message) {
      BOOST_TEST((result.error().code == ErrorCode::invalid_argument));
      BOOST_TEST(result.error().message.find(what) != std::string::npos);
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(contradictions_are_refused_and_change_nothing) {
  Held held;
  const auto with = [&](auto change) {
    graph::Microbatch bad = held.next;
    change(bad);
    return bad;
  };
  using Batch = graph::Microbatch;
  held.refused(with([](Batch& b) { b.slices[0].id = SequenceId(9); }), "unknown");
  held.refused(with([](Batch& b) { b.slices[0].first_position = 41; }), "positions from 41");
  held.refused(with([](Batch& b) { b.slices[0].first_position = 39; }), "positions from 39");
  held.refused(with([](Batch& b) { b.slices[0].table_offset = 1; }), "2 blocks");
  held.refused(with([](Batch& b) { b.slices[0].table_offset = 3; }), "table offset 3");
  held.refused(with([](Batch& b) { b.slices[0].table_offset = -1; }), "table offset -1");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks.clear(); }), "2 blocks");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks.resize(9, KvBlockId(3)); }), "11 blocks");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks[0] = KvBlockId(40); }), "block 40");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks[0] = KvBlockId(-1); }), "block -1");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks[0] = KvBlockId(1); }), "stands in 2");
  held.refused(with([](Batch& b) { b.slices[0].new_blocks.emplace_back(2); }), "given twice");
  held.refused(with([](Batch& b) { b.slices[0].tokens[3] = 80; }), "token 80");
  held.refused(with([](Batch& b) { b.slices[0].tokens[3] = -1; }), "token -1");
  held.refused(with([](Batch& b) { b.slices[0].tokens.clear(); }), "without tokens");
  held.refused(with([](Batch& b) { b.slices[0].tokens.resize(161, 1); }), "161 tokens");
  held.refused(with([](Batch& b) { b.slices.push_back(b.slices[0]); }), "two slices");
  held.refused(with([](Batch& b) { b.slices[0].tokens.pop_back(); }), "cannot be sampled");
  held.refused(with([](Batch& b) { b.released.emplace_back(1); }), "unknown");
  held.refused(with([](Batch& b) { b.descriptors.assign(2, request(4, 0.0f)); }),
               "two descriptors");
  held.refused(with([](Batch& b) { b.descriptors.push_back(request(0, 0.0f)); }), "begin at 1");
  held.refused(with([](Batch& b) {
                 for (uint64_t id = 2; id < 6; ++id) b.descriptors.push_back(request(id, 0.0f));
               }),
               "5 sequences");
  held.refused(with([](Batch& b) {
                 b.descriptors.push_back(request(2, 0.0f));
                 b.descriptors[0].score.first_position = 74;
               }),
               "scoring from position 74");

  // After all of that the sequence goes on as if nothing had happened.
  const auto result = held.chain.run_raw(held.next);
  BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
  const auto expected = held.model.load(1, 1, DType::f32).generate(request(1, 0.0f), 0);
  BOOST_REQUIRE(expected.ok());
  BOOST_TEST((result->tokens[0] == (*expected)[0]));
}

BOOST_AUTO_TEST_CASE(released_blocks_serve_others_in_the_same_microbatch) {
  Held held;
  graph::Microbatch next;
  next.id = MicrobatchId(2);
  next.released = {SequenceId(1), SequenceId(77)};  // an unknown one is fine
  next.descriptors.push_back(request(2, 0.0f));
  next.slices.push_back({SequenceId(2),
                         0,
                         request(2, 0.0f).prompt,
                         0,
                         {KvBlockId(1), KvBlockId(0), KvBlockId(5)},
                         true});
  const auto result = held.chain.run_raw(next);
  BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
  const auto expected = held.model.load(1, 1, DType::f32).generate(request(2, 0.0f), 0);
  BOOST_REQUIRE(expected.ok());
  BOOST_TEST((result->tokens[0] == (*expected)[0]));
}

BOOST_AUTO_TEST_CASE(score_files_are_checked) {
  Held held;
  const std::string path = held.model.folder / "full.npy";
  graph::Microbatch next;
  next.descriptors.push_back(request(2, 0.0f));
  next.descriptors[0].score = {4, path};
  auto missing = held.chain.run_raw(next);
  BOOST_REQUIRE(!missing.ok());
  BOOST_TEST((missing.error().code == ErrorCode::not_found));
  BOOST_REQUIRE(models::write_npy_header(path, 71, 80).ok());  // 70 rows are due
  held.refused(next, "70 rows of 80 columns");
  BOOST_REQUIRE(models::write_npy_header(path, 70, 80).ok());
  BOOST_TEST(held.chain.run_raw(next).ok());
}

BOOST_AUTO_TEST_CASE(specs_and_inputs_are_checked) {
  const Model model;
  const auto refused = [&](auto change, ErrorCode code) {
    models::StageSpec spec;
    spec.layer_end = 5;
    spec.has_embedding = spec.has_head = true;
    spec.num_kv_blocks = spec.max_microbatch_tokens = spec.max_sequences = 4;
    spec.context_tokens = 64;
    change(spec);
    const auto stage = models::load_stage(model.path(), spec, {});
    BOOST_REQUIRE(!stage.ok());
    BOOST_TEST_CONTEXT(stage.error().message) { BOOST_TEST((stage.error().code == code)); }
  };
  using Spec = models::StageSpec;
  const ErrorCode invalid = ErrorCode::invalid_argument;
  refused([](Spec& s) { s.layer_end = 6; }, invalid);
  refused([](Spec& s) { s.layer_begin = 1; }, invalid);  // with the embedding
  refused([](Spec& s) { s.layer_end = 4; }, invalid);    // with the head
  refused([](Spec& s) { s.num_threads = 0; }, invalid);
  refused([](Spec& s) { s.cores = {0, 1}; }, invalid);
  refused([](Spec& s) { s.num_kv_blocks = 0; }, invalid);
  refused([](Spec& s) { s.max_microbatch_tokens = 0; }, invalid);
  refused([](Spec& s) { s.max_sequences = -1; }, invalid);
  refused([](Spec& s) { s.context_tokens = 0; }, invalid);
  refused([](Spec& s) { s.kv_type = DType::q8_0; }, invalid);
  refused([](Spec& s) { s.isa = "sse9"; }, invalid);
  refused([](Spec& s) { s.num_kv_blocks = 1 << 27; }, ErrorCode::no_room);

  models::StageSpec spec;
  spec.layer_begin = 2;
  spec.layer_end = 5;
  spec.num_kv_blocks = spec.max_microbatch_tokens = spec.max_sequences = 4;
  spec.context_tokens = 64;
  int64_t last = 0;
  int64_t total = 0;
  auto stage = models::load_stage(model.path(), spec, [&](int64_t done, int64_t all) {
    BOOST_TEST(done > last);
    last = done;
    total = all;
  });
  BOOST_REQUIRE(stage.ok());
  BOOST_TEST(last == total);
  BOOST_TEST((*stage)->stats().weight_bytes_read == total);
  graph::Microbatch first;
  first.descriptors.push_back(request(1, 0.0f));
  first.slices.push_back({SequenceId(1), 0, {1, 2}, 0, {KvBlockId(0)}, false});
  std::vector<float> output(2 * 64);
  graph::StepResult result;
  const Status status = (*stage)->run(first, std::vector<float>(3), output, result);
  BOOST_REQUIRE(!status.ok());
  BOOST_TEST((status.error().code == ErrorCode::invalid_argument));
}

}  // namespace chainpump
