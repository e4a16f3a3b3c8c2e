// Folders and files that are this user's alone: where a process keeps what it believes later. Any
// thread.
#pragma once

#include <sys/stat.h>

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump {

/// Whether nobody else can have written it.
bool is_own(const struct stat& st);

/// Makes the folder, if it is missing, for this user alone. not_found: it cannot be opened;
/// bad_file: it is another's, or others may write there.
Result<UniqueFd> open_own_folder(const std::filesystem::path& folder);

}  // namespace chainpump
