// The two files of a batch. The input is read where it lies and must not change meanwhile. The
// output grows by whole lines and says itself which lines of which input are done, so that a batch
// whose process was killed at any instant goes on where it was: nothing is lost, nothing twice.
//
// Thread rule: the input is immutable; one thread at a time for the output. One process at a time
// has an output open, the system sees to it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace chainpump::cli {

struct InputLine {
  size_t number = 0;      // in the file, from 1
  std::string_view text;  // without its end; it may be no request at all
};

class BatchInput {
 public:
  /// Lines that are not blank. bad_file if a custom_id is there twice, naming both lines.
  static Result<BatchInput> open(const std::filesystem::path& path);

  const std::vector<InputLine>& lines() const { return lines_; }
  /// Of the content, in hexadecimal digits.
  const std::string& fingerprint() const { return fingerprint_; }
  /// The seed of a line that names none: the same whenever the same input is run.
  uint64_t seed_of(const InputLine& line) const;

 private:
  BatchInput(MappedFile file, std::vector<InputLine> lines);

  MappedFile file_;
  std::vector<InputLine> lines_;
  std::string fingerprint_;
  uint64_t key_ = 0;
};

class BatchOutput {
 public:
  /// Makes the file, or takes over one that an earlier run of the same input left, and repairs its
  /// end. bad_file if it holds anything else, and then it is as it was; overloaded while another
  /// process has it.
  static Result<BatchOutput> open(const std::filesystem::path& path, const BatchInput& input);

  /// Which of the input's lines, by index, have their entry.
  const std::vector<bool>& done() const { return done_; }
  size_t num_done() const { return num_done_; }
  /// The arithmetic that answered the entries that were there, if one was.
  const std::optional<std::string>& system_fingerprint() const { return system_fingerprint_; }

  /// A whole line or, with an error, none of it.
  Status append(std::string_view entry);
  /// What was appended outlives the machine's power.
  Status sync();

 private:
  BatchOutput(std::filesystem::path path, UniqueFd fd)
      : path_(std::move(path)), fd_(std::move(fd)) {}
  Status take_over(const BatchInput& input);
  Status take_entry(std::string_view entry, size_t line, const BatchInput& input);
  Error failed(const char* call) const;

  std::filesystem::path path_;
  UniqueFd fd_;
  int64_t bytes_ = 0;  // of whole lines
  std::vector<bool> done_;
  size_t num_done_ = 0;
  std::optional<std::string> system_fingerprint_;
};

}  // namespace chainpump::cli
