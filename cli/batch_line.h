// One line of a batch, in and out, in OpenAI's format: {"custom_id", "method", "url", "body"} in,
// {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"} out. An entry's
// id, with which its line begins, names the input's content and the line in it: that is what a
// batch that goes on later knows its finished lines by. Pure; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/openai/response.h"

namespace chainpump::cli {

inline constexpr size_t kBatchLineBytesMax = size_t{8} << 20;  // what a message to a service holds
inline constexpr size_t kCustomIdBytesMax = 512;

struct BatchLine {
  std::string custom_id;
  gateway::openai::Endpoint endpoint = gateway::openai::Endpoint::chat_completions;
  gateway::openai::Json body;
};

struct ReadLine {
  std::optional<std::string> custom_id;  // if there is one, whatever else is wrong
  Result<BatchLine> line;
};

/// invalid_argument naming what is wrong. The body is only known to be an object.
ReadLine read_batch_line(std::string_view text);

/// Where an entry stands: the input's fingerprint and the line's number in it, from 1.
struct EntryKey {
  std::string_view fingerprint;
  size_t line = 0;
};

/// How every entry of that input begins, up to the line's number.
std::string entry_beginning(std::string_view fingerprint);

/// The line's number of a whole entry (without its line's end), if it is one of that input.
std::optional<size_t> line_of_entry(std::string_view entry, std::string_view fingerprint);

/// A request that was answered, well or with an error of its own. Ends the line.
std::string answered_entry(const EntryKey& key, const std::string& custom_id, int status_code,
                           const std::string& request_id, const gateway::openai::OrderedJson& body);

/// A line that is no request. Ends the line.
std::string unread_entry(const EntryKey& key, const std::optional<std::string>& custom_id,
                         const Error& error);

/// What an entry says of the arithmetic that answered it; nothing if it was not answered.
std::optional<std::string> fingerprint_of_entry(std::string_view entry);

}  // namespace chainpump::cli
