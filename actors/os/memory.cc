#include "actors/os/memory.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include <fmt/format.h>

#include "base/file_io.h"

namespace chainpump::os {
namespace {

using std::filesystem::path;

constexpr size_t kSystemFileMax = 64 << 10;
constexpr int64_t kGuessedMemory = int64_t{1} << 30;
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// The decimal number that `text` begins with, after blanks; `otherwise` if there is none ("max").
int64_t leading_number(std::string_view text, int64_t otherwise) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return otherwise;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), number);
  return error == std::errc() && number >= 0 ? number : otherwise;
}

int64_t available_memory(const path& root) {
  const auto text = read_small_file(root / "proc/meminfo", kSystemFileMax);
  if (!text) return kGuessedMemory;
  for (const std::string_view name : {"MemAvailable:", "MemTotal:"}) {
    const size_t at = text->find(name);
    const int64_t kib = at == std::string::npos
                            ? 0
                            : leading_number(std::string_view(*text).substr(at + name.size()), 0);
    if (kib > 0 && kib < kUnlimited >> 10) return kib << 10;
  }
  return kGuessedMemory;
}

/// The least limit from `group` (as /proc/self/cgroup names it) up to the root of `hierarchy`. A
/// container often sees its own group as the root while the file names the outer path, so missing
/// folders are passed over.
int64_t group_limit(const path& hierarchy, const path& group, const char* file) {
  int64_t least = kUnlimited;
  path folder = group.relative_path();
  while (true) {
    if (const auto text = read_small_file(hierarchy / folder / file, 64))
      least = std::min(least, leading_number(*text, kUnlimited));
    if (folder.empty()) return least;
    folder = folder.parent_path();
  }
}

int64_t control_group_memory(const path& root) {
  const auto text = read_small_file(root / "proc/self/cgroup", kSystemFileMax);
  int64_t least = kUnlimited;
  std::string_view rest = text ? std::string_view(*text) : std::string_view();
  while (!rest.empty()) {  // "ID:CONTROLLERS:PATH"; v2 has id 0 and no controllers
    const size_t newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    rest.remove_prefix(newline == std::string_view::npos ? rest.size() : newline + 1);
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const path group(line.substr(second + 1));
    if (std::count(group.begin(), group.end(), "..") > 0) continue;
    const path base = root / "sys/fs/cgroup";
    if (controllers.empty())
      least = std::min(least, group_limit(base, group, "memory.max"));
    else if (fmt::format(",{},", controllers).find(",memory,") != std::string::npos)
      least = std::min(least, group_limit(base / "memory", group, "memory.limit_in_bytes"));
  }
  return least;
}

}  // namespace

int64_t usable_memory_bytes(const path& root) {
  return std::min(available_memory(root), control_group_memory(root));
}

}  // namespace chainpump::os
