#include "tests/fakes/kv_chain.h"

#include <algorithm>

namespace chainpump::fakes {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 29;
}

uint64_t hash_of(std::span<const TokenId> tokens) {
  uint64_t hash = 1;
  for (const TokenId token : tokens) hash = mix(hash, static_cast<uint64_t>(token));
  return hash;
}

/// The token after `tokens`, of a sequence with `num_prompt` of them given.
graph::TokenResult sampled(const graph::SequenceDescriptor& d, std::span<const TokenId> tokens,
                           TokenId vocabulary_size) {
  // The draw is keyed by how many were generated before it, which must outlive a preemption.
  const uint64_t draw = tokens.size() - d.prompt.size();
  const uint64_t hash = mix(mix(mix(hash_of(tokens), d.sampling.seed), d.sequence_index), draw);
  graph::TokenResult token;
  token.id = d.id;
  token.position = static_cast<int32_t>(tokens.size());
  token.token = static_cast<TokenId>(hash % static_cast<uint64_t>(vocabulary_size));
  token.logprob = -static_cast<float>(hash % 1024) / 64.0f;
  const auto made = token.position - static_cast<int32_t>(d.prompt.size()) + 1;
  if (token.token == KvChain::kEnd && !d.sampling.ignore_eos)
    token.finish = graph::FinishReason::stop;
  else if (made >= d.sampling.max_new_tokens)
    token.finish = graph::FinishReason::length;
  return token;
}

graph::ScoreResult scored(std::span<const TokenId> tokens, TokenId vocabulary_size) {
  const uint64_t hash = hash_of(tokens);
  graph::ScoreResult score;
  score.position = static_cast<int32_t>(tokens.size()) - 1;
  score.logprob = -static_cast<float>(hash % 1024) / 64.0f;
  score.argmax = static_cast<TokenId>(hash % static_cast<uint64_t>(vocabulary_size));
  return score;
}

template <typename... Args>
Error wrong(fmt::format_string<Args...> text, Args&&... args) {
  return make_error(ErrorCode::internal, text, std::forward<Args>(args)...);
}

}  // namespace

KvChain::KvChain(const KvChainOptions& options)
    : options_(options),
      content_(static_cast<size_t>(options.num_blocks) * static_cast<size_t>(options.block_tokens)),
      num_tables_(static_cast<size_t>(options.num_blocks)) {}

bool KvChain::is_block(KvBlockId block) const {
  return block.value >= options_.first_block &&
         block.value < options_.first_block + options_.num_blocks;
}

KvChain::Written& KvChain::at(KvBlockId block, int32_t offset) {
  return content_[static_cast<size_t>((block.value - options_.first_block) * options_.block_tokens +
                                      offset)];
}

const KvChain::Written& KvChain::at(KvBlockId block, int32_t offset) const {
  return const_cast<KvChain&>(*this).at(block, offset);
}

int32_t KvChain::num_blocks_held() const {
  return static_cast<int32_t>(
      std::count_if(num_tables_.begin(), num_tables_.end(), [](int32_t n) { return n > 0; }));
}

bool KvChain::holds_seed(uint64_t seed) const {
  return std::any_of(held_.begin(), held_.end(), [&](const auto& entry) {
    return entry.second.descriptor.sampling.seed == seed;
  });
}

Result<graph::StepResult> KvChain::run(const graph::Microbatch& given, bool computes) {
  graph::Microbatch microbatch = given;
  if (!computes) {
    microbatch.slices.clear();
    microbatch.descriptors.clear();
  }
  RETURN_IF_ERROR(take_in(microbatch));
  std::fill(num_tables_.begin(), num_tables_.end(), 0);
  for (const auto& [id, held] : held_)
    for (const KvBlockId block : held.table)
      ++num_tables_[static_cast<size_t>(block.value - options_.first_block)];
  // What one slice writes, another of the same microbatch may not count on.
  for (const graph::SequenceSlice& slice : microbatch.slices) RETURN_IF_ERROR(check_reads(slice));
  graph::StepResult result;
  result.id = microbatch.id;
  for (const graph::SequenceSlice& slice : microbatch.slices) {
    RETURN_IF_ERROR(write(slice));
    compute(slice, result);
  }
  return result;
}

Status KvChain::take_in(const graph::Microbatch& microbatch) {
  const auto max_sequences = static_cast<size_t>(options_.max_sequences);
  if (microbatch.num_tokens() > options_.max_tokens)
    return wrong("{} tokens in a microbatch", microbatch.num_tokens());
  if (std::max({microbatch.released.size(), microbatch.copies.size(), microbatch.slices.size()}) >
      max_sequences)
    return wrong("{} releases, {} copies, {} slices", microbatch.released.size(),
                 microbatch.copies.size(), microbatch.slices.size());
  for (const SequenceId id : microbatch.released)
    if (held_.erase(id) == 0 && !repaired_) return wrong("release of {}, which is not held", id);
  for (const graph::BlockCopy& copy : microbatch.copies) {
    if (!is_block(copy.from) || !is_block(copy.to)) return wrong("a copy of foreign blocks");
    for (int32_t i = 0; i < options_.block_tokens; ++i) at(copy.to, i) = at(copy.from, i);
  }
  for (const graph::SequenceDescriptor& d : microbatch.descriptors) {
    Held& held = held_[d.id];
    if (d.id.value == 0 || (!held.tokens.empty() && !repaired_))
      return wrong("{} is described twice", d.id);
    held.descriptor = d;
    held.tokens = d.prompt;
    held.tokens.insert(held.tokens.end(), d.generated.begin(), d.generated.end());
  }
  if (held_.size() > max_sequences) return wrong("{} sequences are held", held_.size());
  for (const graph::SequenceSlice& slice : microbatch.slices) RETURN_IF_ERROR(take_in(slice));
  return ok_status();
}

Status KvChain::take_in(const graph::SequenceSlice& slice) {
  const auto found = held_.find(slice.id);
  if (found == held_.end()) return wrong("a slice of {}, which is not held", slice.id);
  Held& held = found->second;
  if (held.begun && (slice.first_position > held.num_tokens ||
                     (slice.first_position < held.num_tokens && !repaired_)))
    return wrong("{}: position {} after {}", slice.id, slice.first_position, held.num_tokens);
  const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  held.begun = true;
  held.write_from = std::clamp(held.num_tokens, slice.first_position, end);
  held.num_tokens = std::max(held.num_tokens, end);
  if (slice.tokens.empty() || end > static_cast<int32_t>(held.tokens.size()) ||
      !std::equal(slice.tokens.begin(), slice.tokens.end(),
                  held.tokens.begin() + slice.first_position))
    return wrong("{}: tokens at {} are not its own", slice.id, slice.first_position);
  if (slice.table_offset < 0 || slice.table_offset > static_cast<int32_t>(held.table.size()))
    return wrong("{}: table offset {} of {}", slice.id, slice.table_offset, held.table.size());
  held.table.resize(static_cast<size_t>(slice.table_offset));
  for (const KvBlockId block : slice.new_blocks) {
    if (!is_block(block)) return wrong("{}: block {} is foreign", slice.id, block);
    held.table.push_back(block);
  }
  if (static_cast<int32_t>(held.table.size()) * options_.block_tokens < end)
    return wrong("{}: {} blocks for {} positions", slice.id, held.table.size(), end);
  return ok_status();
}

Status KvChain::check_reads(const graph::SequenceSlice& slice) const {
  const Held& held = held_.at(slice.id);
  const uint64_t salt = salt_of(held.descriptor.sampling.seed);
  for (int32_t p = 0; p < held.write_from; ++p) {
    const KvBlockId block = held.table[static_cast<size_t>(p / options_.block_tokens)];
    const Written& there = at(block, p % options_.block_tokens);
    const Written own{held.tokens[static_cast<size_t>(p)], p, salt};
    if (there != own)
      return wrong("{}: position {} in block {} holds token {} of position {} under salt {}",
                   slice.id, p, block, there.token, there.position, there.salt);
  }
  return ok_status();
}

Status KvChain::write(const graph::SequenceSlice& slice) {
  const Held& held = held_.at(slice.id);
  const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  for (int32_t p = held.write_from; p < end; ++p) {
    const KvBlockId block = held.table[static_cast<size_t>(p / options_.block_tokens)];
    if (num_tables_[static_cast<size_t>(block.value - options_.first_block)] != 1)
      return wrong("{}: writes into block {}, which others have too", slice.id, block);
    at(block, p % options_.block_tokens) = {held.tokens[static_cast<size_t>(p)], p,
                                            salt_of(held.descriptor.sampling.seed)};
  }
  return ok_status();
}

bool KvChain::holds(const graph::SequenceSlice& slice, uint64_t seed) const {
  for (size_t i = 0; i < slice.tokens.size(); ++i) {
    const int32_t p = slice.first_position + static_cast<int32_t>(i);
    const KvBlockId block = slice.new_blocks[static_cast<size_t>(p / options_.block_tokens)];
    if (at(block, p % options_.block_tokens) != Written{slice.tokens[i], p, salt_of(seed)})
      return false;
  }
  return true;
}

void KvChain::compute(const graph::SequenceSlice& slice, graph::StepResult& result) {
  Held& held = held_.at(slice.id);
  const int32_t end = slice.first_position + static_cast<int32_t>(slice.tokens.size());
  const std::span<const TokenId> tokens(held.tokens);
  const int32_t first_score = held.descriptor.score.first_position;
  if (first_score >= 0) {
    const auto last = static_cast<int32_t>(held.tokens.size()) - 1;
    for (int32_t p = std::max(slice.first_position, first_score); p < std::min(end, last); ++p) {
      result.scores.push_back(
          scored(tokens.first(static_cast<size_t>(p) + 1), options_.vocabulary_size));
      result.scores.back().id = slice.id;
    }
  }
  if (!slice.sample) return;
  result.tokens.push_back(
      sampled(held.descriptor, tokens.first(static_cast<size_t>(end)), options_.vocabulary_size));
  held.tokens.push_back(result.tokens.back().token);
}

std::vector<graph::TokenResult> KvChain::expected_tokens(
    const graph::SequenceDescriptor& descriptor, TokenId vocabulary_size) {
  std::vector<TokenId> tokens = descriptor.prompt;
  tokens.insert(tokens.end(), descriptor.generated.begin(), descriptor.generated.end());
  std::vector<graph::TokenResult> made;
  do {
    made.push_back(sampled(descriptor, tokens, vocabulary_size));
    tokens.push_back(made.back().token);
  } while (made.back().finish == graph::FinishReason::none);
  return made;
}

std::vector<graph::TokenResult> KvChain::expected_tokens(const graph::Request& request,
                                                         int32_t choice, int32_t context_tokens,
                                                         TokenId vocabulary_size) {
  graph::SequenceDescriptor d;
  d.sequence_index = request.first_choice + static_cast<uint32_t>(choice);
  d.sampling = request.sampling;
  d.sampling.max_new_tokens = std::min(
      d.sampling.max_new_tokens, context_tokens - static_cast<int32_t>(request.prompt.size()) + 1);
  d.prompt = request.prompt;
  d.generated = request.generated;
  return expected_tokens(d, vocabulary_size);
}

std::vector<graph::ScoreResult> KvChain::expected_scores(std::span<const TokenId> prompt,
                                                         int32_t first, TokenId vocabulary_size) {
  std::vector<graph::ScoreResult> scores;
  for (size_t p = static_cast<size_t>(first); p + 1 < prompt.size(); ++p)
    scores.push_back(scored(prompt.first(p + 1), vocabulary_size));
  return scores;
}

}  // namespace chainpump::fakes
