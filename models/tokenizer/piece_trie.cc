#include "models/tokenizer/piece_trie.h"

namespace chainpump::models {

int32_t PieceTrie::child(int32_t node, unsigned char byte) const {
  int32_t at = nodes_[static_cast<size_t>(node)].first_child;
  while (at != kNone && nodes_[static_cast<size_t>(at)].byte != byte)
    at = nodes_[static_cast<size_t>(at)].sibling;
  return at;
}

void PieceTrie::add(std::string_view piece, TokenId token) {
  if (piece.empty()) return;
  const auto new_node = [&](char byte, int32_t sibling) {
    nodes_.push_back({static_cast<unsigned char>(byte), kNone, sibling, kNone});
    return static_cast<int32_t>(nodes_.size() - 1);
  };
  int32_t& root = roots_[static_cast<unsigned char>(piece[0])];
  if (root == kNone) root = new_node(piece[0], kNone);
  int32_t node = root;
  for (const char c : piece.substr(1)) {
    int32_t next = child(node, static_cast<unsigned char>(c));
    if (next == kNone) {
      next = new_node(c, nodes_[static_cast<size_t>(node)].first_child);
      nodes_[static_cast<size_t>(node)].first_child = next;
    }
    node = next;
  }
  TokenId& slot = nodes_[static_cast<size_t>(node)].token;
  if (slot == kNone) slot = token;
}

std::optional<TokenId> PieceTrie::find(std::string_view piece) const {
  const auto match = piece.empty() ? std::nullopt : search(piece, 0);
  if (!match || match->begin != 0 || match->end != piece.size()) return std::nullopt;
  return match->token;
}

std::optional<PieceTrie::Match> PieceTrie::search(std::string_view text, size_t from) const {
  if (nodes_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = roots_[static_cast<unsigned char>(text[begin])];
    std::optional<Match> longest;
    for (size_t at = begin + 1; node != kNone; ++at) {
      const TokenId token = nodes_[static_cast<size_t>(node)].token;
      if (token != kNone) longest = Match{begin, at, token};
      node = at < text.size() ? child(node, static_cast<unsigned char>(text[at])) : kNone;
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace chainpump::models
