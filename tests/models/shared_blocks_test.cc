// The one law with shared KV blocks: prefix hits, several choices of one prompt with copy-on-write,
// preemption, in microbatches put together at random, give the tokens and log-probabilities that
// each sequence has alone.
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>

#include "base/kv_layout.h"
#include "tests/fakes/stage_chain.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/tiny_llama.h"
#include "tests/fakes/why.h"

namespace chainpump {
namespace {

using fakes::prompt_of;

constexpr int32_t kBlocks = 40;
constexpr int32_t kMaxTokens = 160;
constexpr int32_t kMaxSequences = 6;

struct Model {
  TemporaryFolder temporary;
  std::filesystem::path path = temporary.path() / "tiny.gguf";
  fakes::TinyShape shape;

  Model() {
    shape.weights = DType::q8_0;
    fakes::TinyLlama(shape, 5).write(path);
  }
  fakes::StageChain load(int32_t stages, DType kv_type) const {
    fakes::ChainOptions options;
    options.num_layers = shape.layers;
    options.num_stages = stages;
    options.spec.num_threads = 1 + stages % 2;
    options.spec.spin_between_ops = false;
    options.spec.kv_type = kv_type;
    options.spec.num_kv_blocks = kBlocks;
    options.spec.max_microbatch_tokens = kMaxTokens;
    options.spec.max_sequences = kMaxSequences;
    options.spec.context_tokens = 256;
    auto chain = fakes::StageChain::load(path, options);
    BOOST_REQUIRE_MESSAGE(chain.ok(), fakes::why(chain));
    return std::move(*chain);
  }
};

/// What a sequencer would know of one sequence.
struct Running {
  graph::SequenceDescriptor descriptor;
  std::vector<TokenId> tokens;  // prompt and what was generated
  size_t num_sent = 0;
  std::vector<KvBlockId> blocks;
  size_t num_known = 0;  // of them, to the stages
  bool described = false;
  std::vector<graph::TokenResult> made;

  bool done() const { return !made.empty() && made.back().finish != graph::FinishReason::none; }
};

/// Puts microbatches together and keeps the references to blocks.
class Lane {
 public:
  explicit Lane(fakes::StageChain chain) : chain_(std::move(chain)), references_(kBlocks, 0) {}

  Running& add(const graph::SequenceDescriptor& descriptor) {
    Running& sequence = running_[descriptor.id];
    sequence.descriptor = descriptor;
    sequence.tokens = descriptor.prompt;
    return sequence;
  }
  std::map<SequenceId, Running>& running() { return running_; }

  /// Lets `sequence`, of which nothing was sent, begin with `count` positions that `donor` has
  /// sent.
  void share(Running& sequence, const Running& donor, size_t count) {
    for (size_t at = 0; at < count; at += kKvBlockTokens) {
      sequence.blocks.push_back(donor.blocks[at / kKvBlockTokens]);
      ++references(sequence.blocks.back());
    }
    sequence.num_sent = count;
  }
  void add_slice(Running& sequence, size_t count) {
    if (!sequence.described) next_.descriptors.push_back(sequence.descriptor);
    sequence.described = true;
    const size_t begin = sequence.num_sent;
    const size_t end = begin + count;
    if (const size_t at = begin / kKvBlockTokens;
        at < sequence.blocks.size() && references(sequence.blocks[at]) > 1) {
      const KvBlockId shared = sequence.blocks[at];
      next_.copies.push_back({shared, take_block()});
      --references(shared);
      sequence.blocks[at] = next_.copies.back().to;
      sequence.num_known = std::min(sequence.num_known, at);
    }
    while (sequence.blocks.size() * kKvBlockTokens < end) sequence.blocks.push_back(take_block());
    graph::SequenceSlice& slice = next_.slices.emplace_back();
    slice.id = sequence.descriptor.id;
    slice.first_position = static_cast<int32_t>(begin);
    const auto tokens = sequence.tokens.begin();
    slice.tokens.assign(tokens + static_cast<ptrdiff_t>(begin),
                        tokens + static_cast<ptrdiff_t>(end));
    slice.table_offset = static_cast<int32_t>(sequence.num_known);
    slice.new_blocks.assign(sequence.blocks.begin() + slice.table_offset, sequence.blocks.end());
    slice.sample = end == sequence.tokens.size();
    sequence.num_known = sequence.blocks.size();
    sequence.num_sent = end;
  }
  /// Gives its blocks back; what it has made stays.
  void drop(Running& sequence) {
    if (sequence.described) next_.released.push_back(sequence.descriptor.id);
    for (const KvBlockId block : sequence.blocks) --references(block);
    sequence.blocks.clear();
    sequence.num_sent = sequence.num_known = 0;
    sequence.described = false;
  }
  void run() {
    next_.id = MicrobatchId(next_.id.value + 1);
    const auto result = chain_.run_raw(next_);
    BOOST_REQUIRE_MESSAGE(result.ok(), fakes::why(result));
    for (const graph::TokenResult& token : result->tokens) {
      Running& sequence = running_.at(token.id);
      sequence.made.push_back(token);
      sequence.tokens.push_back(token.token);
      sequence.descriptor.generated.push_back(token.token);
    }
    num_copies += next_.copies.size();
    next_ = {.id = next_.id};
  }
  size_t num_copies = 0;

 private:
  int32_t& references(KvBlockId block) { return references_[static_cast<size_t>(block.value)]; }
  /// The next free one in a circle, so that old content is used again late.
  KvBlockId take_block() {
    for (int32_t tries = 0; tries < kBlocks; ++tries) {
      const KvBlockId block(cursor_++ % kBlocks);
      if (references(block) > 0) continue;
      ++references(block);
      return block;
    }
    BOOST_FAIL("no block left");
    return {};
  }

  fakes::StageChain chain_;
  std::vector<int32_t> references_;
  int32_t cursor_ = 0;
  std::map<SequenceId, Running> running_;
  graph::Microbatch next_;
};

graph::SequenceDescriptor request(uint64_t id, std::vector<TokenId> prompt, uint32_t index) {
  graph::SequenceDescriptor descriptor;
  descriptor.id = SequenceId(id);
  descriptor.sequence_index = index;
  descriptor.prompt = std::move(prompt);
  descriptor.sampling.temperature = id % 3 == 0 ? 0.0f : 1.2f;
  descriptor.sampling.seed = 99;
  descriptor.sampling.ignore_eos = true;
  descriptor.sampling.max_new_tokens = 24;
  descriptor.sampling.num_top_logprobs = 3;
  return descriptor;
}

std::vector<graph::TokenResult> alone(const Model& model, DType kv_type,
                                      const graph::SequenceDescriptor& descriptor) {
  auto made = model.load(1, kv_type).generate(descriptor, 0);
  BOOST_REQUIRE_MESSAGE(made.ok(), fakes::why(made));
  return std::move(*made);
}

void decode_all(Lane& lane) {
  for (bool any = true; any;) {
    any = false;
    for (auto& [id, sequence] : lane.running()) {
      if (sequence.done()) continue;
      lane.add_slice(sequence, sequence.tokens.size() - sequence.num_sent);
      any = true;
    }
    if (any) lane.run();
  }
}

constexpr DType kKvTypes[] = {DType::f32, DType::bf16, DType::f16, DType::int8};

}  // namespace

BOOST_AUTO_TEST_SUITE(shared_blocks)

BOOST_AUTO_TEST_CASE(a_prefix_hit_changes_no_bit) {
  const Model model;
  for (const DType kv : kKvTypes) {
    for (const int32_t stages : {1, 2}) {
      Lane lane(model.load(stages, kv));
      Running& first = lane.add(request(1, prompt_of(75, 3), 0));
      lane.add_slice(first, 75);
      lane.run();
      std::vector<TokenId> prompt = prompt_of(75, 3);
      prompt.resize(70);
      prompt.insert(prompt.end(), {5, 6, 7, 8, 9});
      Running& second = lane.add(request(2, prompt, 0));
      lane.share(second, first, 64);
      decode_all(lane);
      BOOST_TEST((first.made == alone(model, kv, request(1, prompt_of(75, 3), 0))), to_string(kv));
      BOOST_TEST((second.made == alone(model, kv, request(2, prompt, 0))), to_string(kv));
      BOOST_TEST(lane.num_copies == 0u);
    }
  }
}

BOOST_AUTO_TEST_CASE(choices_of_one_prompt_change_no_bit) {
  const Model model;
  const std::vector<TokenId> prompt = prompt_of(75, 3);
  for (const DType kv : kKvTypes) {
    Lane lane(model.load(2, kv));
    Running& leader = lane.add(request(1, prompt, 0));
    lane.add_slice(leader, 74);
    lane.run();
    for (uint32_t choice = 1; choice < 4; ++choice)
      lane.share(lane.add(request(1 + choice, prompt, choice)), leader, 74);
    decode_all(lane);
    for (const auto& [id, sequence] : lane.running()) {
      const auto index = static_cast<uint32_t>(id.value - 1);
      BOOST_TEST((sequence.made == alone(model, kv, request(id.value, prompt, index))),
                 to_string(kv) << ", choice " << index);
    }
    BOOST_TEST(lane.num_copies == 3u);  // the last one writes into the block that is left to it
  }
}

BOOST_AUTO_TEST_CASE(microbatches_at_random_change_no_bit) {
  const Model model;
  std::map<uint64_t, std::vector<graph::TokenResult>> expected;  // f32
  const auto prompt_for = [](uint64_t id) {  // prefixes of different lengths in common
    std::vector<TokenId> prompt = prompt_of(110, 3);
    prompt.resize(20 + id * 37 % 80);
    for (uint64_t i = 0; i < id * 11 % 30; ++i)
      prompt.push_back(static_cast<TokenId>((id + i) % 80));
    return prompt;
  };
  for (uint64_t id = 1; id <= 12; ++id)
    expected[id] = alone(model, DType::f32, request(id, prompt_for(id), 0));
  size_t num_shared = 0;
  size_t num_preempted = 0;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::mt19937 engine(seed);
    const auto upto = [&](size_t most) {
      return std::uniform_int_distribution<size_t>(0, most)(engine);
    };
    Lane lane(model.load(1 + static_cast<int32_t>(seed) % 5, DType::f32));
    uint64_t next_id = 1;
    size_t num_active = 0;
    while (next_id <= 12 || num_active > 0) {
      auto& running = lane.running();
      for (auto& [id, sequence] : running) {
        const bool preempt = !sequence.done() && sequence.num_sent > 0 && upto(30) == 0;
        num_preempted += preempt ? 1 : 0;
        if (preempt || (sequence.done() && sequence.described)) lane.drop(sequence);
      }
      num_active = static_cast<size_t>(std::count_if(
          running.begin(), running.end(), [](const auto& r) { return !r.second.done(); }));
      if (next_id <= 12 && num_active < kMaxSequences && upto(1) == 0) {
        lane.add(request(next_id, prompt_for(next_id), 0));
        ++next_id;
        ++num_active;
      }
      std::map<SequenceId, size_t> sent;  // by earlier frames
      for (const auto& [id, sequence] : running) sent[id] = sequence.num_sent;
      size_t room = kMaxTokens;
      for (auto& [id, sequence] : running) {
        if (sequence.done() || upto(2) == 0) continue;
        for (const auto& [donor_id, donor] : running) {
          if (sequence.num_sent > 0 || sent[donor_id] == 0 || upto(1) == 0) continue;
          const size_t most =
              std::min({sent[donor_id], sequence.tokens.size() - 1, donor.tokens.size()});
          const auto end = sequence.tokens.begin() + static_cast<ptrdiff_t>(most);
          size_t count = static_cast<size_t>(
              std::mismatch(sequence.tokens.begin(), end, donor.tokens.begin()).first -
              sequence.tokens.begin());
          if (upto(1) == 0) count -= count % kKvBlockTokens;
          if (count == 0) continue;
          lane.share(sequence, donor, count);
          ++num_shared;
        }
        const size_t left = sequence.tokens.size() - sequence.num_sent;
        const size_t count = std::min({left, 1 + upto(40), room});
        if (count == 0) continue;
        lane.add_slice(sequence, count);
        room -= count;
      }
      lane.run();
    }
    for (const auto& [id, sequence] : lane.running())
      BOOST_TEST((sequence.made == expected[id.value]),
                 "seed " << seed << ", sequence " << id.value);
  }
  BOOST_TEST(num_shared > 20u);
  BOOST_TEST(num_preempted > 10u);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace chainpump
