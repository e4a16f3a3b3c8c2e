// The parts of `chainpump batch` that need no service: lines in and out, and an output that can be
// cut anywhere and goes on.
#include <sys/resource.h>

#include <signal.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "cli/batch_files.h"
#include "cli/batch_line.h"
#include "cli/batch_report.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"

namespace chainpump::cli {
namespace {

using namespace std::chrono_literals;
using fakes::why;

const std::string kGood =
    R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}})";

std::string line_of(const std::string& id) {
  return fmt::format(
      R"({{"custom_id":"{}","method":"POST","url":"/v1/completions","body":{{"prompt":"x"}}}})",
      id);
}

struct Files {
  TemporaryFolder folder;
  std::filesystem::path in = folder.path() / "in.jsonl";
  std::filesystem::path out = folder.path() / "out.jsonl";

  explicit Files(const std::string& text) { write(in, text); }
  static void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string read(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

std::string entry_of(const BatchInput& input, size_t index) {
  const EntryKey key{.fingerprint = input.fingerprint(), .line = input.lines()[index].number};
  return answered_entry(key, fmt::format("id{}", index), 200, "req",
                        {{"system_fingerprint", "cpu"}, {"text", "a\nb"}});
}

}  // namespace

BOOST_AUTO_TEST_CASE(lines_are_read) {
  const ReadLine read = read_batch_line(kGood);
  BOOST_TEST_REQUIRE(read.line.ok(), why(read.line));
  BOOST_TEST(*read.custom_id == "a");
  BOOST_TEST(read.line->custom_id == "a");
  BOOST_TEST((read.line->endpoint == gateway::openai::Endpoint::completions));
  BOOST_TEST(read.line->body["prompt"] == "x");
}

BOOST_AUTO_TEST_CASE(bad_lines_say_what_is_wrong) {
  struct Case {
    std::string text;
    std::string words;
    bool has_id;
  };
  const std::string deep = std::string(100'000, '[');
  const Case cases[] = {
      {"nope", "not JSON from byte 2", false},
      {"[]", "not an object", false},
      {"{}", "'custom_id' must be a string", false},
      {R"({"custom_id":7})", "'custom_id' must be a string", false},
      {R"({"custom_id":""})", "0 bytes", false},
      {R"({"custom_id":")" + std::string(513, 'x') + R"("})", "513 bytes", false},
      {R"({"custom_id":"a","custom_id":"b"})", "'custom_id' is there twice", false},
      {R"({"custom_id":"a"})", "'method'", true},
      {R"({"custom_id":"a","method":"GET"})", "'method'", true},
      {R"({"custom_id":"a","method":"POST"})", "'url'", true},
      {R"({"custom_id":"a","method":"POST","url":7})", "'url'", true},
      {R"({"custom_id":"a","method":"POST","url":"/v1/embeddings"})", "'url'", true},
      {R"({"custom_id":"a","method":"POST","url":"/v1/completions"})", "'body'", true},
      {R"({"custom_id":"a","method":"POST","url":"/v1/completions","body":[]})", "'body'", true},
      {R"({"custom_id":"a","more":1})", "no field 'more'", true},
      {R"({"custom_id":"a","x":1e999})", "not JSON", false},
      {"{\"custom_id\":\"\xff\"}", "not JSON", false},
      {deep, "not JSON", false},
      {R"({"a":)" + deep, "", false},
      {std::string(kBatchLineBytesMax + 1, ' '), "the limit is", false},
  };
  for (const Case& c : cases) {
    const ReadLine read = read_batch_line(c.text);
    BOOST_TEST_CONTEXT(c.text.substr(0, 100)) {
      BOOST_TEST_REQUIRE(!read.line.ok());
      BOOST_TEST((read.line.error().code == ErrorCode::invalid_argument));
      BOOST_TEST(read.line.error().message.find(c.words) != std::string::npos,
                 read.line.error().message);
      BOOST_TEST(read.custom_id.has_value() == c.has_id);
    }
  }
}

BOOST_AUTO_TEST_CASE(entries_are_known_again) {
  const EntryKey key{.fingerprint = "0123", .line = 42};
  const std::string answered = answered_entry(key, "a", 200, "r", {{"system_fingerprint", "f"}});
  const std::string unread =
      unread_entry(key, std::nullopt, make_error(ErrorCode::invalid_argument, "why"));
  for (std::string entry : {answered, unread}) {
    BOOST_TEST(entry.ends_with("}\n"));
    BOOST_TEST(entry.find('\n') == entry.size() - 1);
    entry.pop_back();
    BOOST_TEST(line_of_entry(entry, "0123").value_or(0) == 42u);
    BOOST_TEST(!line_of_entry(entry, "0124").has_value());
    BOOST_TEST(!line_of_entry(entry.substr(0, entry.size() - 3), "0123").has_value());
  }
  BOOST_TEST(fingerprint_of_entry(answered).value_or("") == "f");
  BOOST_TEST(!fingerprint_of_entry(unread).has_value());
  const auto json = gateway::openai::Json::parse(unread);
  BOOST_TEST(json["error"]["message"] == "line 42: why");
  BOOST_TEST(json["error"]["line"] == 42);
  BOOST_TEST(json["custom_id"].is_null());
  BOOST_TEST(json["response"].is_null());
  for (const char* entry : {"", "{}", R"({"id":"batch_req_0123_"})", R"({"id":"batch_req_0123_x"})",
                            R"({"id":"batch_req_0123_0"})", R"({"id":"batch_req_0123_7x"})"})
    BOOST_TEST(!line_of_entry(entry, "0123").has_value());
}

BOOST_AUTO_TEST_CASE(blank_lines_are_no_requests_but_count) {
  const Files files("\n" + line_of("a") + "\r\n  \t\n" + line_of("b"));
  const Result<BatchInput> input = BatchInput::open(files.in);
  BOOST_TEST_REQUIRE(input.ok(), why(input));
  BOOST_REQUIRE_EQUAL(input->lines().size(), 2u);
  BOOST_TEST(input->lines()[0].number == 2u);
  BOOST_TEST(input->lines()[1].number == 4u);
  BOOST_TEST(read_batch_line(input->lines()[0].text).line.ok());
  BOOST_TEST(input->seed_of(input->lines()[0]) != input->seed_of(input->lines()[1]));
}

BOOST_AUTO_TEST_CASE(a_custom_id_that_is_there_twice_is_refused_with_both_lines) {
  const Files files(line_of("a") + "\n" + line_of("b") + "\nnope\n" + line_of("a") + "\n");
  const Result<BatchInput> input = BatchInput::open(files.in);
  BOOST_TEST_REQUIRE(!input.ok());
  BOOST_TEST((input.error().code == ErrorCode::bad_file));
  BOOST_TEST(input.error().message.find("in.jsonl:4: custom_id 'a' is that of line 1") !=
             std::string::npos);
  std::string many;
  for (int i = 0; i < 30; ++i) many += line_of("a") + "\n";
  Files::write(files.in, many);
  BOOST_TEST(BatchInput::open(files.in).error().message.ends_with("and 19 more"));
}

BOOST_AUTO_TEST_CASE(an_output_that_was_cut_anywhere_goes_on) {
  const Files files(line_of("a") + "\n" + line_of("b") + "\n" + line_of("c") + "\n");
  const Result<BatchInput> input = BatchInput::open(files.in);
  BOOST_TEST_REQUIRE(input.ok(), why(input));
  const std::string first = entry_of(*input, 1);
  const std::string whole = first + entry_of(*input, 0);
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    Files::write(files.out, whole.substr(0, cut));
    BOOST_TEST_CONTEXT("cut at " << cut) {
      Result<BatchOutput> output = BatchOutput::open(files.out, *input);
      BOOST_TEST_REQUIRE(output.ok(), why(output));
      BOOST_TEST(output->done()[1] == (cut >= first.size()));
      BOOST_TEST(output->done()[0] == (cut == whole.size()));
      BOOST_TEST(!output->done()[2]);
      BOOST_TEST(output->system_fingerprint().has_value() == (cut >= first.size()));
      for (size_t i : {1, 0, 2})
        if (!output->done()[i]) BOOST_TEST(output->append(entry_of(*input, i)).ok());
      if (cut == whole.size()) BOOST_TEST(output->sync().ok());
    }
    BOOST_TEST(Files::read(files.out) == whole + entry_of(*input, 2));
  }
}

BOOST_AUTO_TEST_CASE(what_is_no_output_of_this_input_is_left_as_it_is) {
  const Files files(line_of("a") + "\n\n" + line_of("b") + "\n");
  const Files others(line_of("a") + "\n" + line_of("c") + "\n");
  const Result<BatchInput> input = BatchInput::open(files.in);
  const Result<BatchInput> other = BatchInput::open(others.in);
  BOOST_TEST_REQUIRE(input.ok(), why(input));
  BOOST_TEST_REQUIRE(other.ok(), why(other));
  const std::string good = entry_of(*input, 0);
  const EntryKey blank{.fingerprint = input->fingerprint(), .line = 2};
  const EntryKey beyond{.fingerprint = input->fingerprint(), .line = 9};
  const Error error = make_error(ErrorCode::invalid_argument, "x");
  for (const std::string& text :
       {std::string("hello"), std::string("hello\n"),
        std::string("{"
                    "}\n"),
        std::string("\n"), line_of("a") + "\n", entry_of(*other, 0),
        good + entry_of(*other, 1).substr(0, 40), good + good, good + "\n",
        good + std::string(3, '\0'), unread_entry(blank, {}, error),
        unread_entry(beyond, {}, error)}) {
    Files::write(files.out, text);
    const Result<BatchOutput> output = BatchOutput::open(files.out, *input);
    BOOST_TEST_CONTEXT(text) {
      BOOST_TEST_REQUIRE(!output.ok());
      BOOST_TEST((output.error().code == ErrorCode::bad_file));
      BOOST_TEST(Files::read(files.out) == text);
    }
  }
  BOOST_TEST((BatchOutput::open("/dev/null", *input).error().code == ErrorCode::bad_file));
  BOOST_TEST((BatchOutput::open(files.folder.path(), *input).error().code == ErrorCode::not_found));
  BOOST_TEST((BatchOutput::open("/no/folder/out", *input).error().code == ErrorCode::not_found));
}

BOOST_AUTO_TEST_CASE(one_batch_at_a_time_writes_an_output) {
  const Files files(line_of("a") + "\n");
  const Result<BatchInput> input = BatchInput::open(files.in);
  BOOST_TEST_REQUIRE(input.ok(), why(input));
  {
    const Result<BatchOutput> one = BatchOutput::open(files.out, *input);
    BOOST_TEST_REQUIRE(one.ok(), why(one));
    BOOST_TEST((BatchOutput::open(files.out, *input).error().code == ErrorCode::overloaded));
  }
  BOOST_TEST(BatchOutput::open(files.out, *input).ok());
}

BOOST_AUTO_TEST_CASE(a_full_disk_leaves_no_part_of_a_line) {
  const Files files(line_of("a") + "\n" + line_of("b") + "\n");
  const Result<BatchInput> input = BatchInput::open(files.in);
  BOOST_TEST_REQUIRE(input.ok(), why(input));
  Result<BatchOutput> output = BatchOutput::open(files.out, *input);
  BOOST_TEST_REQUIRE(output.ok(), why(output));
  const std::string first = entry_of(*input, 0);
  BOOST_TEST(output->append(first).ok());
  // A limit on the file's size stands for the disk's.
  const auto before = ::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  BOOST_TEST_REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const rlimit small{.rlim_cur = first.size() + 10, .rlim_max = limit.rlim_max};
  BOOST_TEST_REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const Status appended = output->append(entry_of(*input, 1));
  BOOST_TEST_REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  ::signal(SIGXFSZ, before);
  BOOST_TEST_REQUIRE(!appended.ok());
  BOOST_TEST((appended.error().code == ErrorCode::internal));
  BOOST_TEST(Files::read(files.out) == first);
  BOOST_TEST(output->append(entry_of(*input, 1)).ok());
  BOOST_TEST(Files::read(files.out) == first + entry_of(*input, 1));
}

BOOST_AUTO_TEST_CASE(reports) {
  BOOST_TEST(time_text(0) == "0 s");
  BOOST_TEST(time_text(59.6) == "1 min 0 s");
  BOOST_TEST(time_text(3725) == "1 h 2 min");
  BOOST_TEST(time_text(-1) == "0 s");
  BatchCounts counts{.lines = 200, .before = 20, .done = 0};
  BOOST_TEST(progress_text(counts, 0s) == "20 of 200 lines, 0.0 lines/s, 0 tokens/s");
  counts.done = 40;
  counts.failed = 1;
  counts.tokens = 800;
  BOOST_TEST(progress_text(counts, 10s) ==
             "60 of 200 lines (1 with an error), 4.0 lines/s, 80 tokens/s, 35 s left");
  BOOST_TEST(summary_text(counts, 10s) ==
             "60 of 200 lines are done: 40 in this run (1 with an error), 800 tokens in 10.0 s, "
             "4.0 lines/s, 80.0 tokens/s");
  counts.done = 180;
  BOOST_TEST(summary_text(counts, 10s).starts_with("all 200 lines are done: 180 in this run"));
}

}  // namespace chainpump::cli
