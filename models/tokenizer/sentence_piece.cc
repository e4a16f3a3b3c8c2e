// SentencePiece's BPE: characters merge into the piece of the highest score; what is in no piece
// falls back to bytes. Text is handled with plain spaces where SentencePiece writes U+2581.
// Source: Kudo and Richardson, "SentencePiece", EMNLP 2018.
#include <algorithm>
#include <array>
#include <bitset>
#include <numeric>

#include "models/tokenizer/merge.h"
#include "models/tokenizer/utf8.h"
#include "models/tokenizer/vocabulary_tokenizer.h"
#include "models/tokenizer/word_cache.h"

namespace chainpump::models {
namespace {

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  SentencePieceTokenizer(Vocabulary vocabulary, bool adds_bos, bool adds_space,
                         std::vector<int32_t> ranks, TokenId unknown)
      : VocabularyTokenizer(std::move(vocabulary), adds_bos),
        adds_space_(adds_space),
        ranks_(std::move(ranks)),
        unknown_(unknown) {
    byte_tokens_.fill(kNoToken);
    for (TokenId id = 0; id < vocabulary_.size(); ++id) {
      const std::string_view bytes = vocabulary_.bytes(id);
      if (vocabulary_.kind(id) == TokenKind::byte)
        byte_tokens_[static_cast<unsigned char>(bytes[0])] = id;
      else if (!vocabulary_.is_control(id))
        for (size_t i = 1; i < bytes.size(); ++i) joined_[pair(bytes, i)] = true;
    }
  }

 private:
  void encode_text(std::string_view text, std::vector<TokenId>& out) const override {
    std::string spaced;
    spaced.reserve(text.size() + 1);
    if (adds_space_) spaced += ' ';
    append_replaced(text, kSpaceMark, " ", spaced);
    Merger merger(vocabulary_.size());
    WordCache cache(spaced.size());
    cut_pieces(
        vocabulary_.user_defined(), spaced,
        [&](std::string_view part) { encode_words(part, merger, cache, out); },
        [&](TokenId token) { out.push_back(token); });
  }

  static size_t pair(std::string_view text, size_t at) {
    return size_t{static_cast<unsigned char>(text[at - 1])} << 8 |
           static_cast<unsigned char>(text[at]);
  }

  // Nothing merges across two bytes that no piece has side by side (most often: something before a
  // space): so what lies between such places is encoded alone, with the same result.
  void encode_words(std::string_view part, Merger& merger, WordCache& cache,
                    std::vector<TokenId>& out) const {
    bool after_unknown = false;
    const auto encode = [&](std::string_view word, std::vector<TokenId>& tokens) {
      return encode_word(word, merger, after_unknown, tokens);
    };
    const auto append = [&](std::string_view word) {
      if (after_unknown)
        encode(word, out);
      else
        cache.append(word, out, encode);
    };
    size_t begin = 0;
    for (size_t at = 1; at < part.size(); ++at) {
      const bool in_character = (static_cast<unsigned char>(part[at]) & 0xC0) == 0x80;
      if (in_character || joined_[pair(part, at)]) continue;
      append(part.substr(begin, at - begin));
      begin = at;
    }
    append(part.substr(begin));
  }

  // Whether the same tokens may serve again: not if some depended on what preceded or will count
  // for what follows.
  bool encode_word(std::string_view word, Merger& merger, bool& after_unknown,
                   std::vector<TokenId>& out) const {
    merger.symbols.clear();
    for (uint32_t at = 0; at < word.size();) {
      const uint32_t length = utf8_length(word[at]);
      merger.symbols.push_back({at, length, vocabulary_.find_text(word.substr(at, length))});
      at += length;
    }
    merger.merge([&](const Symbol& left, const Symbol& right) -> Merge {
      const TokenId id = vocabulary_.find_text(word.substr(left.begin, left.length + right.length));
      return id == kNoToken ? Merge{} : Merge{ranks_[static_cast<size_t>(id)], id};
    });
    bool known = true;
    for (const Symbol& symbol : merger.symbols) {
      const std::string_view bytes = word.substr(symbol.begin, symbol.length);
      if (symbol.id != kNoToken)
        out.push_back(symbol.id);
      else if (!push_bytes(bytes == " " ? kSpaceMark : bytes, out) && !after_unknown &&
               unknown_ != kNoToken)
        out.push_back(unknown_);  // one for a whole run
      after_unknown = symbol.id == kNoToken;
      known &= !after_unknown;
    }
    return known;
  }

  bool push_bytes(std::string_view bytes, std::vector<TokenId>& out) const {
    const auto token = [this](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
    if (std::any_of(bytes.begin(), bytes.end(), [&](char c) { return token(c) == kNoToken; }))
      return false;
    for (const char c : bytes) out.push_back(token(c));
    return true;
  }

  bool adds_space_;
  std::bitset<size_t{1} << 16> joined_;  // pairs of bytes that some piece has side by side
  std::vector<int32_t> ranks_;  // of each token's score, the highest first; equal for equal scores
  TokenId unknown_;
  std::array<TokenId, 256> byte_tokens_{};
};

Result<std::vector<int32_t>> load_ranks(const GgufFile& file, size_t count) {
  const std::vector<double>* scores = file.find_floats("tokenizer.ggml.scores");
  if (scores == nullptr || scores->size() != count)
    return make_error(ErrorCode::bad_file,
                      "{}: key 'tokenizer.ggml.scores' has {} entries for {} tokens",
                      file.path().string(), scores == nullptr ? 0 : scores->size(), count);
  if (std::any_of(scores->begin(), scores->end(), [](double score) { return score != score; }))
    return make_error(ErrorCode::bad_file, "{}: key 'tokenizer.ggml.scores' holds a NaN",
                      file.path().string());
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return (*scores)[a] > (*scores)[b]; });
  std::vector<int32_t> ranks(count);
  int32_t rank = 0;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0 && (*scores)[order[i]] != (*scores)[order[i - 1]]) ++rank;
    ranks[order[i]] = rank;
  }
  return ranks;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> load_sentence_piece_tokenizer(const GgufFile& file) {
  if (file.find_bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false))
    return make_error(ErrorCode::unimplemented,
                      "{}: key 'tokenizer.ggml.remove_extra_whitespaces' is not supported",
                      file.path().string());
  if (file.metadata().contains("tokenizer.ggml.precompiled_charsmap"))
    return make_error(ErrorCode::unimplemented,
                      "{}: key 'tokenizer.ggml.precompiled_charsmap' is not supported",
                      file.path().string());
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::load(file, Spelling::sentence_piece));
  const auto count = static_cast<size_t>(vocabulary.size());
  ASSIGN_OR_RETURN(std::vector<int32_t> ranks, load_ranks(file, count));
  TokenId unknown = kNoToken;
  for (TokenId id = 0; id < vocabulary.size() && unknown == kNoToken; ++id)
    if (vocabulary.kind(id) == TokenKind::unknown) unknown = id;
  const bool adds_bos = file.find_bool("tokenizer.ggml.add_bos_token").value_or(true);
  const bool adds_space = file.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(
      std::move(vocabulary), adds_bos, adds_space, std::move(ranks), unknown));
}

}  // namespace chainpump::models
