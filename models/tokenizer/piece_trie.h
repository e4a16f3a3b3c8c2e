// Finds the pieces that are cut out of text before anything else looks at it (control tokens and
// those that users added): the longest at each place, leftmost first. Immutable once filled; any
// thread. A search costs the text's length times the longest piece, at worst.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace chainpump::models {

class PieceTrie {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    TokenId token = 0;
  };

  PieceTrie() { roots_.fill(kNone); }

  /// The first token given for a piece keeps it. Empty pieces are ignored.
  void add(std::string_view piece, TokenId token);
  bool empty() const { return nodes_.empty(); }
  std::optional<TokenId> find(std::string_view piece) const;
  /// The first match at or after `from`.
  std::optional<Match> search(std::string_view text, size_t from) const;

 private:
  static constexpr int32_t kNone = -1;
  struct Node {
    unsigned char byte = 0;
    int32_t first_child = kNone;
    int32_t sibling = kNone;
    TokenId token = kNone;
  };

  int32_t child(int32_t node, unsigned char byte) const;

  std::array<int32_t, 256> roots_;
  std::vector<Node> nodes_;
};

}  // namespace chainpump::models
