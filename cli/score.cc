#include "cli/score.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "actors/os/signals.h"
#include "base/unique_fd.h"
#include "cli/client.h"
#include "cli/exit_status.h"
#include "graph/diagnostics.h"
#include "models/npy.h"

namespace chainpump::cli {
namespace {

using Json = nlohmann::json;

constexpr Duration kLineMax = std::chrono::hours(24);
constexpr size_t kLineBytesMax = size_t{16} << 20;

struct Line {
  size_t number = 0;  // in the input, from 1
  std::vector<TokenId> prompt;
  std::vector<TokenId> targets;
};

Result<std::vector<TokenId>> read_ids(const Json& line, const char* key, size_t number) {
  const auto found = line.find(key);
  const auto bad = [&] {
    return make_error(ErrorCode::invalid_argument,
                      "line {}: '{}' must be a list of token ids, not empty", number, key);
  };
  if (found == line.end() || !found->is_array() || found->empty()) return bad();
  std::vector<TokenId> ids;
  for (const Json& id : *found) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) return bad();
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

Result<Line> parse_line(std::string_view text, size_t number) {
  std::set<std::string> keys;
  std::string twice;
  const auto note_key = [&](int depth, Json::parse_event_t event, const Json& parsed) {
    if (event != Json::parse_event_t::key || depth != 1) return true;
    if (!keys.insert(parsed.get<std::string>()).second) twice = parsed.get<std::string>();
    return true;
  };
  const Json json = Json::parse(text, note_key, /*allow_exceptions=*/false);
  if (!json.is_object())
    return make_error(ErrorCode::invalid_argument,
                      "line {}: not a JSON object with prompt_ids and target_ids", number);
  if (!twice.empty())
    return make_error(ErrorCode::invalid_argument, "line {}: '{}' is there twice", number,
                      graph::shown(twice));
  Line line{.number = number, .prompt = {}, .targets = {}};
  ASSIGN_OR_RETURN(line.prompt, read_ids(json, "prompt_ids", number));
  ASSIGN_OR_RETURN(line.targets, read_ids(json, "target_ids", number));
  return line;
}

Result<std::vector<Line>> read_lines(std::istream& in) {
  std::vector<Line> lines;
  std::vector<char> buffer(kLineBytesMax + 2);  // with a byte too many, and the terminator
  size_t number = 1;
  for (; in.getline(buffer.data(), static_cast<std::streamsize>(buffer.size())); ++number) {
    const auto num_read = static_cast<size_t>(in.gcount());
    const std::string_view text(buffer.data(), in.eof() ? num_read : num_read - 1);
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    ASSIGN_OR_RETURN(Line line, parse_line(text, number));
    lines.push_back(std::move(line));
  }
  if (in.bad()) return make_error(ErrorCode::bad_file, "standard input cannot be read");
  if (!in.eof())
    return make_error(ErrorCode::invalid_argument, "line {}: longer than {} bytes", number,
                      kLineBytesMax);
  return lines;
}

/// Where the last stage writes one line's rows; empty if nobody asked for them.
std::string part_of(const std::string& full) { return full.empty() ? full : full + ".part"; }

/// The file of all lines' rows: each line's rows come from a file of its own, which the last stage
/// wrote, and are moved here in order.
class FullFile {
 public:
  FullFile(std::string path, int64_t num_columns) : path_(std::move(path)), cols_(num_columns) {}
  FullFile(const FullFile&) = delete;
  FullFile& operator=(const FullFile&) = delete;
  ~FullFile() { std::filesystem::remove(part_path(), ignored_); }

  bool wanted() const { return !path_.empty(); }
  std::string part_path() const { return part_of(path_); }

  Status create(int64_t num_rows) {
    if (!wanted()) return ok_status();
    RETURN_IF_ERROR(models::write_npy_header(path_, num_rows, cols_));
    return ok_status();
  }
  Status begin_part(int64_t num_rows) {
    if (!wanted()) return ok_status();
    return models::write_npy_header(part_path(), num_rows, cols_);
  }
  Status append_part(int64_t num_rows) {
    if (!wanted()) return ok_status();
    const UniqueFd from(::open(part_path().c_str(), O_RDONLY | O_CLOEXEC));
    const UniqueFd to(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
    off_t at = models::npy_row_offset(0, cols_);
    off_t target = models::npy_row_offset(next_row_, cols_);
    int64_t left = models::npy_row_offset(num_rows, cols_) - at;
    while (left > 0) {
      const ssize_t n =
          ::copy_file_range(from.get(), &at, to.get(), &target, static_cast<size_t>(left), 0);
      if (n <= 0)
        return make_error(ErrorCode::internal, "{}: cannot write: {}", path_, std::strerror(errno));
      left -= n;
    }
    next_row_ += num_rows;
    return ok_status();
  }

 private:
  std::string path_;
  int64_t cols_;
  int64_t next_row_ = 0;
  std::error_code ignored_;
};

Status finish(gateway::Scored& scored, std::ostream& out) {
  ASSIGN_OR_RETURN(const gateway::Scores scores, scored.wait(kLineMax));
  out << Json({{"logprobs", scores.logprobs}, {"argmax_ids", scores.argmax}}).dump() << '\n';
  if (!out.flush()) return make_error(ErrorCode::internal, "standard output cannot be written");
  return ok_status();
}

/// Nothing is scored if a line cannot be: output that stops halfway looks like output.
Status check_lines(const std::vector<Line>& lines, const gateway::DeploymentInfo& deployment) {
  const int32_t vocabulary_size = deployment.vocabulary_size;
  for (const Line& line : lines) {
    const size_t num_tokens = line.prompt.size() + line.targets.size();
    if (num_tokens > static_cast<size_t>(deployment.plan.context_tokens))
      return make_error(ErrorCode::invalid_argument,
                        "line {}: {} tokens, but this deployment serves {} (give --context)",
                        line.number, num_tokens, deployment.plan.context_tokens);
    for (const auto* ids : {&line.prompt, &line.targets})
      for (const TokenId id : *ids)
        if (id >= vocabulary_size)
          return make_error(ErrorCode::invalid_argument,
                            "line {}: token {} is outside the vocabulary of {}", line.number, id,
                            vocabulary_size);
  }
  return ok_status();
}

Error in_line(const Line& line, const Error& error) {
  return make_error(error.code, "line {}: {}", line.number, error.message);
}

Status score_all(const ScoreOptions& options, const std::vector<Line>& lines, std::ostream& out) {
  DeployOptions deploy = options.deploy;
  deploy.use_service &= options.full.empty();  // a service writes no files for its clients
  ASSIGN_OR_RETURN(const std::unique_ptr<gateway::Service> service, open_service(deploy));
  const gateway::DeploymentInfo& deployment = service->deployment();
  RETURN_IF_ERROR(check_lines(lines, deployment));
  RETURN_IF_ERROR(wait_ready(*service));
  FullFile full(options.full, deployment.vocabulary_size);
  int64_t num_rows = 0;
  for (const Line& line : lines) num_rows += static_cast<int64_t>(line.targets.size());
  RETURN_IF_ERROR(full.create(num_rows));
  // With a full file one line is under way at a time, so that one part file is enough.
  constexpr size_t kWindowMax = 32;  // a service admits no more than twice that of one client
  const size_t window =
      full.wanted() ? 1 : std::min(kWindowMax, size_t(deployment.plan.max_sequences) * 2);
  std::vector<std::unique_ptr<gateway::Scored>> under_way;
  size_t next = 0;
  for (size_t done = 0; done < lines.size(); ++done) {
    for (; next < lines.size() && next < done + window; ++next) {
      RETURN_IF_ERROR(full.begin_part(static_cast<int64_t>(lines[next].targets.size())));
      Result<std::unique_ptr<gateway::Scored>> scored =
          service->score({.prompt = lines[next].prompt,
                          .targets = lines[next].targets,
                          .full_path = full.part_path()});
      if (!scored.ok()) return in_line(lines[next], scored.error());
      under_way.push_back(std::move(*scored));
    }
    if (const Status line = finish(*under_way[done], out); !line.ok())
      return in_line(lines[done], line.error());
    under_way[done].reset();
    RETURN_IF_ERROR(full.append_part(static_cast<int64_t>(lines[done].targets.size())));
  }
  return ok_status();
}

}  // namespace

int run_score(const ScoreOptions& options, std::istream& in, std::ostream& out) {
  ::signal(SIGPIPE, SIG_IGN);  // a reader that has left is an error like a full disk
  // Ranks end with their parent; only the file between them and us would stay.
  const auto listening = os::TerminationSignals::create([part = part_of(options.full)](int signal) {
    if (!part.empty()) ::unlink(part.c_str());
    ::_exit(128 + signal);
  });
  const Result<std::vector<Line>> lines =
      listening.ok() ? read_lines(in) : Result<std::vector<Line>>(listening.error());
  const Status done = lines.ok() ? score_all(options, *lines, out) : Status(lines.error());
  if (done.ok()) return 0;
  std::fprintf(stderr, "chainpump: %s\n", done.error().message.c_str());
  return exit_status(done.error().code);
}

}  // namespace chainpump::cli
