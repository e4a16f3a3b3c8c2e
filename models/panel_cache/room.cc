#include "models/panel_cache/room.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

namespace chainpump::models {
namespace {

constexpr time_t kLeftoverSeconds = 3600;

struct Entry {
  timespec used;
  int64_t bytes;
  std::string name;
};

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};

std::vector<Entry> list_files(int folder_fd, std::string_view file_end) {
  std::vector<Entry> entries;
  const int own = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseFolder> folder(own < 0 ? nullptr : fdopendir(own));
  if (folder == nullptr) {
    if (own >= 0) close(own);
    return entries;
  }
  const time_t now = std::time(nullptr);
  while (const dirent* entry = readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    const bool temporary = name.starts_with(kPanelTemporaryBegin);
    struct stat st {};
    if (!temporary && !name.ends_with(file_end)) continue;
    if (fstatat(folder_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (temporary && now - st.st_mtime > kLeftoverSeconds &&
        unlinkat(folder_fd, entry->d_name, 0) == 0)
      continue;
    entries.push_back({st.st_atim, int64_t{st.st_blocks} * 512, std::string(name)});
  }
  return entries;
}

}  // namespace

bool make_room(int folder_fd, std::string_view keep, int64_t bytes, const RoomRules& rules) {
  std::vector<Entry> entries = list_files(folder_fd, rules.file_end);
  int64_t used = 0;
  for (const Entry& entry : entries) used += entry.bytes;
  struct statvfs disk {};
  if (fstatvfs(folder_fd, &disk) != 0) return false;
  const auto free = static_cast<int64_t>(disk.f_bavail * disk.f_frsize);
  const int64_t limit =
      std::min(rules.limit_bytes,
               static_cast<int64_t>(static_cast<double>(free + used) * rules.share_of_free));
  std::erase_if(entries, [&](const Entry& entry) {
    return entry.name.starts_with(keep) || entry.name.starts_with(kPanelTemporaryBegin);
  });
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.used.tv_sec, a.used.tv_nsec, a.name) <
           std::tie(b.used.tv_sec, b.used.tv_nsec, b.name);
  });
  size_t num_victims = 0;
  while (used + bytes > limit && num_victims < entries.size()) used -= entries[num_victims++].bytes;
  if (used + bytes > limit) return false;
  for (size_t i = 0; i < num_victims; ++i) {
    const std::string& name = entries[i].name;
    const std::string begin = name.substr(0, name.size() - rules.file_end.size());
    for (const std::string_view end : rules.with)
      static_cast<void>(unlinkat(folder_fd, (begin + std::string(end)).c_str(), 0));
    static_cast<void>(unlinkat(folder_fd, name.c_str(), 0));
  }
  return true;
}

}  // namespace chainpump::models
