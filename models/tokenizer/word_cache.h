// Words of one text that were encoded before, with their tokens: most of a text is few words. One
// slot, a cache line, per word, found by its bytes; a newer word takes the slot of an older.
// Lives as long as one call and is sized by its text, so that it holds nobody's text afterwards and
// short texts pay little. One thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "models/tokenizer/merge.h"

namespace chainpump::models {

class WordCache {
 public:
  static constexpr size_t kWordBytesMax = 23;
  static constexpr size_t kTokensMax = 10;

  explicit WordCache(size_t text_bytes)
      : slots_(std::bit_ceil(std::clamp<size_t>(text_bytes / 16, 2, 8192))),
        shift_(64 - std::countr_zero(slots_.size())) {}

  /// Appends the tokens of `word` to `out`. encode(word, out) does so for a word not seen, and says
  /// whether the same tokens may serve again.
  template <typename Encode>
  void append(std::string_view word, std::vector<TokenId>& out, const Encode& encode) {
    if (word.empty() || word.size() > kWordBytesMax) {
      encode(word, out);
      return;
    }
    const Key key = key_of(word);
    Slot& slot = slots_[key.hash() >> shift_];
    if (slot.key == key) {
      for (const TokenId token : slot.tokens) {
        if (token == kNoToken) return;
        out.push_back(token);
      }
      return;
    }
    const size_t before = out.size();
    const bool again = encode(word, out);
    const std::span<const TokenId> tokens = std::span(out).subspan(before);
    if (!again || tokens.size() > kTokensMax) return;
    slot.key = key;
    std::fill(std::copy(tokens.begin(), tokens.end(), slot.tokens), std::end(slot.tokens),
              kNoToken);
  }

 private:
  struct Key {  // the word's length and all its bytes: zero for none
    uint64_t low = 0;
    uint64_t middle = 0;
    uint64_t high = 0;
    bool operator==(const Key&) const = default;
    uint64_t hash() const {
      return low * 0x9E3779B97F4A7C15 + middle * 0xD6E8FEB86659FD93 + high * 0xC2B2AE3D27D4EB4F;
    }
  };
  struct alignas(64) Slot {
    Key key;
    TokenId tokens[kTokensMax] = {};  // kNoToken behind the last
  };

  template <typename Word>
  static uint64_t load(const char* at) {
    Word word = 0;
    std::memcpy(&word, at, sizeof word);
    return word;
  }

  // Reads within the word only: loads that overlap stand for the bytes between.
  static Key key_of(std::string_view word) {
    const size_t size = word.size();
    const char* at = word.data();
    const uint64_t length = uint64_t{size} << 56;
    const auto last = [&] { return load<uint64_t>(at + size - 8); };
    if (size >= 16) return {load<uint64_t>(at), load<uint64_t>(at + 8), last() >> 8 | length};
    if (size >= 8) return {load<uint64_t>(at), last(), length};
    if (size >= 4) return {load<uint32_t>(at) | load<uint32_t>(at + size - 4) << 32, 0, length};
    return {
        load<uint8_t>(at) | load<uint8_t>(at + size / 2) << 8 | load<uint8_t>(at + size - 1) << 16,
        0, length};
  }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace chainpump::models
