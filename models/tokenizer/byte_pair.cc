// Byte-level BPE: words from the pre-tokenizer, one symbol per byte, merged by the file's list.
// A byte that the vocabulary lacks is dropped, as the oracle does without an unknown token.
#include <array>
#include <atomic>
#include <bit>

#include "models/tokenizer/merge.h"
#include "models/tokenizer/normalize.h"
#include "models/tokenizer/pre_tokenizer.h"
#include "models/tokenizer/vocabulary_tokenizer.h"

namespace chainpump::models {
namespace {

// (left, right) -> merge. Open addressing: one cache line per look-up.
class MergeTable {
 public:
  explicit MergeTable(size_t count) : slots_(std::bit_ceil(count * 2 + 2)) {}

  void set(TokenId left, TokenId right, Merge merge) {
    Slot& slot = slots_[place(key(left, right))];
    slot = {key(left, right), merge};
  }
  Merge find(TokenId left, TokenId right) const { return slots_[place(key(left, right))].merge; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };
  static uint64_t key(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t place(uint64_t wanted) const {
    const uint64_t hash = wanted * 0x9E3779B97F4A7C15;
    const size_t mask = slots_.size() - 1;
    size_t at = (hash ^ hash >> 32) & mask;
    while (slots_[at].key != kFree && slots_[at].key != wanted) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_;
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
    Merger merger;
    cut_pieces(
        vocabulary_.user_defined(), text,
        [&](std::string_view part) {
          for (size_t begin = 0; begin < part.size();) {
            const size_t end = word_end(pre_tokenizer_, part, begin);
            encode_word(part.substr(begin, end - begin), merger, out);
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
  MergeTable table(merges->size());
  std::string both;
  for (size_t rank = 0; rank < merges->size(); ++rank) {
    const std::string_view line = (*merges)[rank];
    const size_t gap = line.find(' ', 1);
    both.clear();
    bool known = gap != std::string_view::npos && append_byte_level(line.substr(0, gap), both);
    const size_t left_bytes = both.size();
    known = known && append_byte_level(line.substr(gap + 1), both);
    const std::string_view text = both;
    const TokenId left = known ? vocabulary.find_text(text.substr(0, left_bytes)) : kNoToken;
    const TokenId right = known ? vocabulary.find_text(text.substr(left_bytes)) : kNoToken;
    const TokenId merged = known ? vocabulary.find_text(text) : kNoToken;
    if (left == kNoToken || right == kNoToken || merged == kNoToken)
      return make_error(ErrorCode::bad_file,
                        "{}: key 'tokenizer.ggml.merges': merge {} ('{}') is not two tokens that "
                        "make a third",
                        file.path().string(), rank, printable(line));
    table.set(left, right, {static_cast<int32_t>(rank), merged});
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
