// Byte-level BPE: words from the pre-tokenizer, one symbol per byte, merged by the file's list.
// A byte that the vocabulary lacks is dropped, as the oracle does without an unknown token.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>

#include "models/tokenizer/merge.h"
#include "models/tokenizer/normalize.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/vocabulary_tokenizer.h"
#include "models/tokenizer/word_cache.h"

namespace chainpump::models {
namespace {

// (left, right) -> merge. Open addressing with the whole key and the rank in one word each, so that
// a core's cache holds most of the table.
class MergeTable {
 public:
  static constexpr int kTokenBits = 20;
  static constexpr size_t kTokensMax = size_t{1} << kTokenBits;
  static constexpr size_t kMergesMax = (size_t{1} << (64 - 2 * kTokenBits)) - 1;

  /// For at most kMergesMax merges of tokens below kTokensMax.
  explicit MergeTable(size_t count)
      : slots_(std::bit_ceil(count + count / 2 + 2), kFree),
        shift_(64 - std::countr_zero(slots_.size())) {
    merged_.reserve(count);
  }

  /// The next rank. The last of equal pairs counts.
  void add(TokenId left, TokenId right, TokenId merged) {
    const uint64_t pair = key(left, right);
    slots_[place(pair)] = pair << kRankBits | merged_.size();
    merged_.push_back(merged);
  }
  Merge find(TokenId left, TokenId right) const {
    const uint64_t slot = slots_[place(key(left, right))];
    if (slot == kFree) return {};
    const uint64_t rank = slot & ((uint64_t{1} << kRankBits) - 1);
    return {static_cast<int32_t>(rank), merged_[rank]};
  }
  int32_t size() const { return static_cast<int32_t>(merged_.size()); }

 private:
  static constexpr int kRankBits = 64 - 2 * kTokenBits;
  static constexpr uint64_t kFree = ~uint64_t{0};  // its rank would be kMergesMax

  static uint64_t key(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << kTokenBits | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t pair) const {
    size_t at = pair * 0x9E3779B97F4A7C15 >> shift_;
    while (slots_[at] != kFree && slots_[at] >> kRankBits != pair)
      at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<uint64_t> slots_;  // pair << kRankBits | rank
  int shift_;
  std::vector<TokenId> merged_;  // by rank
};

class BytePairTokenizer final : public VocabularyTokenizer {
 public:
  BytePairTokenizer(Vocabulary vocabulary, bool adds_bos, PreTokenizer pre_tokenizer,
                    MergeTable merges)
      : VocabularyTokenizer(std::move(vocabulary), adds_bos),
        pre_tokenizer_(pre_tokenizer),
        merges_(std::move(merges)),
        reach_(new std::atomic<Reach>[static_cast<size_t>(vocabulary_.size())]) {
    for (int32_t i = 0; i < vocabulary_.size(); ++i)
      reach_[static_cast<size_t>(i)].store(Reach::unknown, std::memory_order_relaxed);
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      byte_tokens_[static_cast<size_t>(byte)] = vocabulary_.find_text({&c, 1});
    }
  }

 private:
  void encode_text(std::string_view text, std::vector<TokenId>& out) const override {
    std::string buffer;
    if (pre_tokenizer_ == PreTokenizer::qwen2) text = to_nfc(text, buffer);
    Merger merger(merges_.size());
    WordCache cache(text.size());
    const auto encode = [&](std::string_view word, std::vector<TokenId>& tokens) {
      encode_word(word, merger, tokens);
      return true;
    };
    cut_pieces(
        vocabulary_.user_defined(), text,
        [&](std::string_view part) {
          for (size_t begin = 0; begin < part.size();) {
            const size_t end = word_end(pre_tokenizer_, part, begin);
            cache.append(part.substr(begin, end - begin), out, encode);
            begin = end;
          }
        },
        [&](TokenId token) { out.push_back(token); });
  }

  void encode_word(std::string_view word, Merger& merger, std::vector<TokenId>& out) const {
    // Most words are one token. Whether merging leads to that token is a fact of the vocabulary,
    // found once per token; llama-bpe does not ask (`ignore_merges` in its own description).
    const TokenId whole = vocabulary_.find_text(word);
    if (whole != kNoToken) {
      const bool asks = pre_tokenizer_ != PreTokenizer::llama_bpe;
      const Reach reach = reach_[static_cast<size_t>(whole)].load(std::memory_order_relaxed);
      if (!asks || reach == Reach::merged) return out.push_back(whole);
    }
    merger.symbols.clear();
    for (uint32_t i = 0; i < word.size(); ++i) {
      const TokenId token = byte_tokens_[static_cast<unsigned char>(word[i])];
      if (token != kNoToken) merger.symbols.push_back({i, 1, token});
    }
    merger.merge([this](const Symbol& left, const Symbol& right) {
      return merges_.find(left.id, right.id);
    });
    for (const Symbol& symbol : merger.symbols) out.push_back(symbol.id);
    if (whole != kNoToken && merger.symbols.size() == 1 && merger.symbols[0].id == whole)
      reach_[static_cast<size_t>(whole)].store(Reach::merged, std::memory_order_relaxed);
  }

  enum class Reach : uint8_t { unknown, merged };

  PreTokenizer pre_tokenizer_;
  MergeTable merges_;
  std::array<TokenId, 256> byte_tokens_{};
  // Written by any thread, always with the same value: so that this object is immutable to see.
  std::unique_ptr<std::atomic<Reach>[]> reach_;
};

Result<MergeTable> load_merges(const GgufFile& file, const Vocabulary& vocabulary) {
  const std::vector<std::string_view>* merges = file.find_strings("tokenizer.ggml.merges");
  if (merges == nullptr)
    return make_error(ErrorCode::bad_file, "{}: key 'tokenizer.ggml.merges' is missing",
                      file.path().string());
  const auto tokens = static_cast<size_t>(vocabulary.size());
  if (tokens > MergeTable::kTokensMax || merges->size() > MergeTable::kMergesMax)
    return make_error(ErrorCode::unimplemented, "{}: {} tokens and {} merges; at most {} and {}",
                      file.path().string(), tokens, merges->size(), MergeTable::kTokensMax,
                      MergeTable::kMergesMax);
  MergeTable table(merges->size());
  // In blocks, so that the vocabulary's slots are on their way from memory before they are asked
  // for.
  constexpr size_t kBlock = 32;
  const auto bad_merge = [&](size_t rank) {
    return make_error(ErrorCode::bad_file,
                      "{}: key 'tokenizer.ggml.merges': merge {} ('{}') is not two tokens that "
                      "make a third",
                      file.path().string(), rank, printable((*merges)[rank]));
  };
  std::string texts;
  std::array<size_t, 2 * kBlock + 1> ends{};  // in `texts`: of each left and each right part
  for (size_t begin = 0; begin < merges->size(); begin += kBlock) {
    const size_t count = std::min(kBlock, merges->size() - begin);
    texts.clear();
    for (size_t i = 0; i < count; ++i) {
      const std::string_view line = (*merges)[begin + i];
      const size_t gap = line.find(' ', 1);
      if (gap == std::string_view::npos || !append_byte_level(line.substr(0, gap), texts))
        return bad_merge(begin + i);
      ends[2 * i + 1] = texts.size();
      if (!append_byte_level(line.substr(gap + 1), texts)) return bad_merge(begin + i);
      ends[2 * i + 2] = texts.size();
    }
    const auto text = [&](size_t first, size_t last) {
      return std::string_view(texts).substr(ends[first], ends[last] - ends[first]);
    };
    for (size_t i = 0; i < 2 * count; i += 2)
      for (const auto& part : {text(i, i + 1), text(i + 1, i + 2), text(i, i + 2)})
        vocabulary.prefetch_text(part);
    for (size_t i = 0; i < count; ++i) {
      const TokenId left = vocabulary.find_text(text(2 * i, 2 * i + 1));
      const TokenId right = vocabulary.find_text(text(2 * i + 1, 2 * i + 2));
      const TokenId merged = vocabulary.find_text(text(2 * i, 2 * i + 2));
      if (left == kNoToken || right == kNoToken || merged == kNoToken) return bad_merge(begin + i);
      table.add(left, right, merged);
    }
  }
  return table;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_byte_pair_tokenizer(const GgufFile& file) {
  const auto name = file.find_string("tokenizer.ggml.pre");
  const auto pre_tokenizer = pre_tokenizer_from_name(name.value_or(""));
  if (!pre_tokenizer)
    return make_error(ErrorCode::unimplemented,
                      "{}: pre-tokenizer '{}' (key 'tokenizer.ggml.pre') is not supported; smollm, "
                      "gpt-2, llama-bpe and qwen2 are",
                      file.path().string(), name ? printable(*name) : "none named");
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::load(file, Spelling::byte_level));
  ASSIGN_OR_RETURN(MergeTable merges, load_merges(file, vocabulary));
  const bool adds_bos = file.find_bool("tokenizer.ggml.add_bos_token")
                            .value_or(*pre_tokenizer == PreTokenizer::llama_bpe);
  return std::unique_ptr<Tokenizer>(std::make_unique<BytePairTokenizer>(
      std::move(vocabulary), adds_bos, *pre_tokenizer, std::move(merges)));
}

}  // namespace chainpump::models
