// Where a prompt comes from: the options name a text, a file or token ids.
// Reads files and standard input; one thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "cli/run.h"
#include "gateway/types.h"

namespace chainpump::cli {

/// The longest prompt that is read from a file or standard input.
inline constexpr size_t kPromptBytesMax = size_t{64} << 20;

/// A file's or standard input's ("-") whole text. not_found, invalid_argument if too long.
Result<std::string> read_text(const std::string& path);

/// "1,2,3". invalid_argument naming the part that is no token id.
Result<std::vector<TokenId>> parse_token_ids(std::string_view text);

/// The prompt that the options name, whichever way, as a chat where the model has a template and
/// nothing says otherwise. invalid_argument if they name none or several, or an empty one.
Result<gateway::Prompt> prompt_of(const RunOptions& options, bool has_chat_template);

}  // namespace chainpump::cli
