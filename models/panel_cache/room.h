// Room in a cache's folder, of repacked weights or of fetched ones: a limit, and what goes when it
// is reached. Whole files go, those least recently used (by access time, which the cache sets at
// each use) first. No state; any thread, any number of processes: two that make room at once may
// remove a file more than needed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace chainpump::models {

inline constexpr std::string_view kPanelFileEnd = ".panels";
inline constexpr std::string_view kPanelTemporaryBegin = ".new-";

struct RoomRules {
  std::string_view file_end = kPanelFileEnd;  // of the files that count
  std::vector<std::string_view> with = {};    // go with one: their ends in place of its
  int64_t limit_bytes = 0;
  double share_of_free = 0.1;  // or so much of what is free or used by the folder, if it is less
};

/// Makes sure that `bytes` more keep the folder within the rules. Never removes a file whose name
/// begins with `keep`: the model being loaded. Temporary files that nobody has written for an hour
/// are leftovers of a crash and go. False: not enough could be removed, and nothing was.
bool make_room(int folder_fd, std::string_view keep, int64_t bytes, const RoomRules& rules);

}  // namespace chainpump::models
