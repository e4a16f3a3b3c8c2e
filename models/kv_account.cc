#include "models/kv_account.h"

#include <algorithm>

#include "base/kv_layout.h"

namespace chainpump::models {

void KvAccount::begin_round(const SequenceTable& table, bool all) {
  ids_ = table.ids();
  std::sort(ids_.begin(), ids_.end());
  all_ = all;
  sequence_ = 0;
  index_ = 0;
  num_found_ = 0;
}

std::optional<KvAccount::Version> KvAccount::next(const SequenceTable& table) {
  for (; sequence_ < ids_.size(); ++sequence_, index_ = 0) {
    const SequenceId id = ids_[sequence_];
    if (!table.contains(id)) continue;  // it has gone meanwhile
    const auto covered = static_cast<int32_t>(table.block_table(id).size()) * kKvBlockTokens;
    const int32_t num_tokens = std::min(table.num_tokens(id), covered);
    while (index_ * kKvBlockTokens < num_tokens) {
      const int32_t index = index_++;
      const int32_t num_written =
          std::min<int32_t>(kKvBlockTokens, num_tokens - index * kKvBlockTokens);
      if (num_written < kKvBlockTokens && !all_) continue;
      const KvBlockId block = table.block_table(id)[static_cast<size_t>(index)];
      const Version version{.sequence = id,
                            .block = block,
                            .num_written = num_written,
                            .times_begun = table.times_begun(block)};
      const Copied& copied = copied_[static_cast<size_t>(block.value)];
      if (copied.num_written >= num_written && copied.times_begun == version.times_begun) continue;
      ++num_found_;
      return version;
    }
  }
  return std::nullopt;
}

void KvAccount::note_copied(const Version& version) {
  copied_[static_cast<size_t>(version.block.value)] = {version.num_written, version.times_begun};
}

}  // namespace chainpump::models
