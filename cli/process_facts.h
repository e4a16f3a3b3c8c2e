// What /proc says of processes that may end at any moment: who is whose child, and what one holds.
// Any thread.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::cli {

/// A process, told from a later one that has its number.
struct ProcessName {
  pid_t pid = 0;
  uint64_t started = 0;  // ticks since the machine's start
  auto operator<=>(const ProcessName&) const = default;
};

/// Nothing if it is gone, or only to be reaped.
std::optional<ProcessName> name_of(pid_t pid);
/// Those that live.
std::vector<ProcessName> children_of(pid_t pid);
/// argv; empty if it is gone.
std::vector<std::string> arguments_of(pid_t pid);

struct Holdings {
  int64_t private_bytes = 0;  // memory that is no file's
  int64_t num_fds = 0;
};
/// Nothing if it is gone.
std::optional<Holdings> holdings_of(pid_t pid);

/// A hold on this very process, for signals; not_found if it is gone.
Result<UniqueFd> open_process(ProcessName process);
/// False if it is gone.
bool send_signal(const UniqueFd& process, int number);

}  // namespace chainpump::cli
