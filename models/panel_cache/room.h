// Room in the folder of repacked weights: a limit, and what goes when it is reached. Whole files
// go, those least recently used (by access time, which the cache sets at each use) first. No state;
// any thread, any number of processes: two that make room at once may remove a file more than
// needed.
#pragma once

#include <cstdint>
#include <string_view>

namespace chainpump::models {

inline constexpr std::string_view kPanelFileEnd = ".panels";
inline constexpr std::string_view kPanelTemporaryBegin = ".new-";

/// Makes sure that `bytes` more keep the folder within the lesser of `limit_bytes` and a tenth of
/// what is free or used by it. Never removes a file whose name begins with `keep`: the model being
/// loaded. Temporary files that nobody has written for an hour are leftovers of a crash and go.
/// False: not enough could be removed, and nothing was.
bool make_room(int folder_fd, std::string_view keep, int64_t bytes, int64_t limit_bytes);

}  // namespace chainpump::models
