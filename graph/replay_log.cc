#include "graph/replay_log.h"

#include <algorithm>

#include "base/check.h"

namespace chainpump::graph {

ReplayLog::ReplayLog(const ReplayLogOptions& options)
    : options_(options),
      block_bytes_(int64_t{options.block_tokens} * options.row_floats * int64_t{sizeof(float)}),
      max_entries_(static_cast<size_t>(options.max_bytes / std::max<int64_t>(block_bytes_, 1))),
      entries_(static_cast<size_t>(options.num_blocks), order_.end()) {
  CHECK(options.num_blocks >= 0 && options.block_tokens > 0 && options.row_floats > 0);
}

const ReplayLog::Entry* ReplayLog::find(KvBlockId block) const {
  const auto entry = entries_.at(static_cast<size_t>(block.value));
  return entry == order_.end() ? nullptr : &*entry;
}

/// As the one used last.
ReplayLog::Entry* ReplayLog::find(KvBlockId block) {
  const auto entry = entries_.at(static_cast<size_t>(block.value));
  if (entry == order_.end()) return nullptr;
  order_.splice(order_.end(), order_, entry);
  return &*entry;
}

/// Null if there is no room.
ReplayLog::Entry* ReplayLog::make(KvBlockId block, bool keep) {
  Order one;
  if (order_.size() < max_entries_) {
    one.emplace_back().rows.resize(static_cast<size_t>(options_.block_tokens) *
                                   static_cast<size_t>(options_.row_floats));
  } else {
    if (keep || order_.empty()) return nullptr;
    entries_[static_cast<size_t>(order_.front().block.value)] = order_.end();
    one.splice(one.end(), order_, order_.begin());
  }
  one.front().block = block;
  one.front().num_positions = 0;
  order_.splice(order_.end(), one);
  entries_[static_cast<size_t>(block.value)] = std::prev(order_.end());
  return &order_.back();
}

void ReplayLog::forget(KvBlockId block) {
  auto& entry = entries_.at(static_cast<size_t>(block.value));
  if (entry != order_.end()) order_.erase(entry);
  entry = order_.end();
}

void ReplayLog::add(KvBlockId block, int32_t offset, std::span<const float> row, bool is_new,
                    bool keep) {
  CHECK_EQ(row.size(), static_cast<size_t>(options_.row_floats));
  Entry* entry = find(block);
  if (entry == nullptr && offset == 0) entry = make(block, keep);
  if (entry == nullptr) return;
  if (is_new) entry->num_positions = std::min(entry->num_positions, offset);
  if (offset != entry->num_positions) return;
  std::copy(row.begin(), row.end(),
            entry->rows.begin() + static_cast<ptrdiff_t>(offset) * options_.row_floats);
  ++entry->num_positions;
}

void ReplayLog::copy(KvBlockId from, KvBlockId to, bool keep) {
  forget(to);
  if (find(from) == nullptr) return;  // from here on the last that would give way
  Entry* copied = make(to, keep);
  if (copied == nullptr) return;
  const Entry* source = std::as_const(*this).find(from);
  if (source == nullptr) return forget(to);  // the only one there was room for
  copied->num_positions = source->num_positions;
  std::copy(source->rows.begin(), source->rows.end(), copied->rows.begin());
}

int32_t ReplayLog::num_positions(KvBlockId block) const {
  const Entry* entry = find(block);
  return entry == nullptr ? 0 : entry->num_positions;
}

std::span<const float> ReplayLog::row(KvBlockId block, int32_t offset) const {
  const Entry* entry = find(block);
  CHECK(entry != nullptr && offset >= 0 && offset < entry->num_positions);
  const auto floats = static_cast<size_t>(options_.row_floats);
  return std::span(entry->rows).subspan(static_cast<size_t>(offset) * floats, floats);
}

std::vector<StageHoldings::Logged> ReplayLog::all() const {
  std::vector<StageHoldings::Logged> logged;
  for (const Entry& entry : order_) logged.push_back({entry.block, entry.num_positions});
  return logged;
}

}  // namespace chainpump::graph
