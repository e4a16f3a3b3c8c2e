// Files made to hurt: each is refused with words, soon and in little memory. Every one is read in a
// child process, whose high-water mark says what it took.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <chrono>

#include "graph/graph.h"
#include "graph/yaml_events.h"

namespace chainpump::graph {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int64_t kSlack = 10;  // shadow memory, and freed memory that is kept for a while
#else
constexpr int64_t kSlack = 1;
#endif
constexpr int64_t kBytesMax = kSlack * (int64_t{64} << 20);
constexpr auto kTimeMax = std::chrono::seconds(kSlack);

std::string repeat(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

/// `line(i)` until the file is as large as any that is read.
template <typename Line>
std::string fill(std::string text, Line line) {
  for (size_t i = 0;; ++i) {
    const std::string next = line(i);
    if (text.size() + next.size() > YamlLimits::kFileBytesMax) return text;
    text += next;
  }
}

struct Hostile {
  std::string name;
  std::string text;
  std::string words;  // in the error
};

/// Nine references to nine references to ...: expanded it would be a billion.
std::string alias_bomb() {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i)
    text += fmt::format("a{}: &a{} [{}]\n", i, i, repeat(fmt::format("*a{}, ", i - 1), 9));
  return text + "stages: *a9\n";
}

std::vector<Hostile> hostile_files() {
  const auto number = [](size_t i) { return std::to_string(i); };
  std::string long_cycle = "stages:\n";
  std::string no_inputs = "stages:\n";
  for (int i = 0; i < 1024; ++i) {
    no_inputs += fmt::format("- {{name: s{}, inputs: [{}]}}\n", i, repeat("x, ", 15));
    long_cycle += fmt::format("- {{name: s{}, inputs: [s{}]}}\n", i, (i + 1) % 1024);
  }
  return {
      {"a list of 100,000 levels", repeat(repeat("[", 1000) + "\n", 100), "nested deeper than 64"},
      {"a list of lists on many lines", fill("", [](size_t) { return "- "; }), "a line of over"},
      {"mappings nested by indentation",
       fill("", [](size_t i) { return std::string(i, ' ') + "a:\n"; }), "nested deeper than 64"},
      {"an alias bomb", alias_bomb(), "anchors (&x) are not allowed"},
      {"150,000 aliases", fill("", [](size_t) { return "- *a\n"; }), "aliases (*x)"},
      {"an alias of nothing", "stages: *a\n", "aliases (*x) are not allowed"},
      {"10^6 stages as a number", "stages: 1000000\n", "must be an integer in [1, 1024]"},
      {"10^6 stages as a list", "stages:\n" + repeat("- {}\n", 1000000), "at most 262144"},
      {"stages as many as fit", fill("stages:\n", [](size_t) { return "-\n"; }), "not valid YAML"},
      {"values as many as fit", fill("stages:\n", [](size_t) { return "- a\n"; }),
       "more than 20000 values"},
      {"19,000 stages", "stages:\n" + repeat("- {}\n", 19000), "19000 stages, must be 1 to 1024"},
      {"a cycle of 1,024 stages", long_cycle, "the stages form a cycle: s0 -> "},
      {"stages with inputs that are not there", no_inputs, "no stage is named 'x'"},
      {"unknown keys", fill("", [&](size_t i) { return "k" + number(i) + ": 1\n"; }),
       "unknown key"},
      {"one key again and again", fill("", [](size_t) { return "name: a\n"; }), "duplicate key"},
      {"keys that are all alike",
       fill("", [&](size_t i) { return repeat("stage", 12) + number(i) + ": 1\n"; }),
       "unknown key"},
      {"a word as long as a line", "name: " + std::string(4000, 'a') + "\n", "1 to 64 letters"},
      {"a long line", "name: " + std::string(200000, 'a') + "\n", "a line of over"},
      {"a text over many lines", fill("model: >\n", [](size_t) { return "  aaaaaaaaaaaaaaa\n"; }),
       "1 to 4096 bytes"},
      {"quotes that never end", fill("model: \"", [](size_t) { return "a\\n\n"; }), "f:"},
      {"escapes", fill("model: \"", [](size_t) { return "\\x41\\u0041\\\n"; }) + "\"\n", "f:"},
      {"flow that never ends", fill("stages: [", [](size_t) { return "{},\n"; }), "f:"},
      {"explicit keys", fill("", [](size_t) { return "? a\n"; }), "f:"},
      {"complex keys", fill("", [](size_t) { return "? [a, b]\n"; }), "a key must be a plain word"},
      {"comments", fill("", [](size_t) { return "# comment\n"; }), "the file holds no graph"},
      {"blank lines", std::string(YamlLimits::kFileBytesMax, '\n'), "the file holds no graph"},
      {"tabs", repeat("\t\n", 100000), "f:"},
      {"dashes", repeat(std::string(4000, '-') + "\n", 60), "f:"},
      {"documents", fill("", [](size_t) { return "---\n"; }), "a second document"},
      {"a file too large", std::string(1 << 20, '\n'), "at most 262144 are read"},
  };
}

struct Taken {
  bool refused = false;
  int64_t bytes = 0;
  std::chrono::nanoseconds time{};
  char error[256] = {};
};

/// ru_maxrss of a new process begins with what it has.
int64_t high_water_bytes() {
  rusage usage{};
  CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  return int64_t{usage.ru_maxrss} << 10;
}

Taken read_in_child(const std::string& text) {
  int ends[2];
  CHECK(pipe(ends) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(60);
    Taken taken;
    const int64_t before = high_water_bytes();
    const auto start = std::chrono::steady_clock::now();
    const auto graph = parse_graph_text(text, "f");
    taken.time = std::chrono::steady_clock::now() - start;
    taken.bytes = high_water_bytes() - before;
    taken.refused = !graph.ok();
    if (!graph.ok()) graph.error().message.copy(taken.error, sizeof(taken.error) - 1);
    const bool written = write(ends[1], &taken, sizeof(taken)) == sizeof(taken);
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  Taken taken;
  const bool whole = read(ends[0], &taken, sizeof(taken)) == sizeof(taken);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  BOOST_TEST(whole, "the child died, status " << status);
  return taken;
}

BOOST_AUTO_TEST_CASE(HostileFilesEndSoonInLittleMemory) {
  for (const Hostile& hostile : hostile_files()) {
    BOOST_TEST_CONTEXT(hostile.name) {
      const Taken taken = read_in_child(hostile.text);
      BOOST_TEST(taken.refused);
      BOOST_TEST(std::string_view(taken.error).find(hostile.words) != std::string_view::npos,
                 taken.error);
      BOOST_TEST(taken.bytes <= kBytesMax);
      BOOST_TEST((taken.time <= kTimeMax));
      BOOST_TEST_MESSAGE(fmt::format("{:<40} {:>6.1f} MB {:>7.1f} ms", hostile.name,
                                     static_cast<double>(taken.bytes) / 1e6,
                                     static_cast<double>(taken.time.count()) / 1e6));
    }
  }
}

BOOST_AUTO_TEST_CASE(WhatIsNoFileIsRefused) {
  for (const char* path : {"/dev/zero", "/proc", "/nowhere"})
    BOOST_TEST(!load_graph(path).ok(), path);
}

}  // namespace
}  // namespace chainpump::graph
