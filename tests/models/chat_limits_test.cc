// Hostile templates and inputs: each ends with a clear error within a second, within the memory
// that the limits allow.
#include <sys/resource.h>

#include <boost/test/unit_test.hpp>
#include <ctime>
#include <string>

#include "models/chat/chat_template.h"

namespace chainpump::models {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSecondsMax = 10.0;
constexpr int64_t kBytesMax = int64_t{8} << 30;
#else
constexpr double kSecondsMax = 1.0;
constexpr int64_t kBytesMax = int64_t{1} << 30;  // strings made in all: 256 MiB; lists beside them
#endif

std::string repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

int64_t peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

// Of this process: what other processes do at the time is no matter.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Result<std::string> render(const std::string& source, const ChatInput& input = {}) {
  const Result<ChatTemplate> parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.error();
  return parsed->render_text(input);
}

void check_refused(const std::string& source, std::string_view says, const ChatInput& input = {}) {
  const double start = cpu_seconds();
  const Result<std::string> text = render(source, input);
  const double took = cpu_seconds() - start;
  BOOST_TEST_CONTEXT(source.substr(0, 120)) {
    BOOST_TEST(took < kSecondsMax);
    BOOST_TEST(peak_bytes() < kBytesMax);
    BOOST_TEST_REQUIRE(!text.ok());
    BOOST_TEST((text.error().code == ErrorCode::invalid_argument));
    BOOST_TEST(text.error().message.find(says) != std::string::npos, text.error().message);
    BOOST_TEST(text.error().message.size() < 2000);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(chat_bounds_time) {
  const std::string nested_loops =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  const struct {
    std::string source;
    std::string_view says;
  } table[] = {
      {"{{ range(10**9) }}", "range is too large"},
      {"{{ range(-(10**18), 10**18) }}", "range is too large"},
      {nested_loops, "too many steps"},
      {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"},
      {"{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "too deeply"},
      {"{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
       "too deeply"},
      {"{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(90) }}",
       "too many steps"},
      {"{% set x = range(99999) | list %}{% for i in x %}{% if i in x %}{% endif %}{% endfor %}",
       "too many steps"},
      {"{{ (range(99999) | list) == 7 }}{% for i in range(99999) %}{{ range(99999) | sum }}"
       "{% endfor %}",
       "too many steps"},
      {"{{ range(99999) | unique | list | length }}", "too many steps"},
      {"{% set s = 'a' * 9999999 %}{% for i in range(9999) %}{{ s.find('b') }}{% endfor %}",
       "too many steps"},
      {"{% set s = 'ab' * 9999 %}{% for i in range(9999) %}{{ s | upper | length }}{% endfor %}",
       "too m"},
      {"{% set s = 'a' * 9999999 %}{% for i in range(9999) %}{{ s.replace('b', '') | length }}"
       "{% endfor %}",
       "too m"},
      {"{% for i in range(99999) %}{{ range(9999) | sort | length }}{% endfor %}",
       "too many steps"},
  };
  for (const auto& row : table) check_refused(row.source, row.says);
}

BOOST_AUTO_TEST_CASE(chat_bounds_memory) {
  const struct {
    std::string source;
    std::string_view says;
  } table[] = {
      {"{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
       "{% endfor %}",
       "grows beyond 16 MiB"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}"
       "{% endfor %}",
       "grows beyond 10^6 items"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(199) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% endfor %}",
       "nest beyond 100 levels"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% endfor %}{{ ns.l }}",
       "too m"},
      {"{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
       "{% endfor %}{{ ns.l | tojson(indent=64) }}",
       "too m"},
      {"{{ 'ab' * 10**12 }}", "grows beyond 16 MiB"},
      {"{{ 'ab' * 9223372036854775807 }}", "grows beyond 16 MiB"},
      {"{{ [1, 2] * 10**12 }}", "grows beyond 10^6 items"},
      {"{{ 10**9 * [0] }}", "grows beyond 10^6 items"},
      {"{% for i in range(99) %}{{ 'x' * 9999999 }}{% endfor %}", "output grows beyond 16 MiB"},
      {"{% set s = 'x' * 9999999 %}{{ s.replace('x', s) }}", "grows beyond 16 MiB"},
      {"{% set s = 'x' * 9999999 %}{{ s.replace('', s) }}", "grows beyond 16 MiB"},
      {"{% set s = 'x' * 9999999 %}{{ range(99999) | join(s) }}", "grows beyond 16 MiB"},
      {"{% set s = 'x' * 9999999 %}{{ range(99999) | list | tojson(separators=(s, s)) }}", "too m"},
      {"{% set s = 'x' * 9999999 %}{{ (s ~ '{}' * 999).format(s, s, s) }}", ""},
      {"{% set s = '\\n' * 9999999 %}{{ s | indent(1024, blank=true) }}", "grows beyond 16 MiB"},
      {"{{ 'x' | indent(10**9) }}", "at most 1024"},
      {"{% set s = '<' * 9999999 %}{{ '' | safe + s }}", "grows beyond 16 MiB"},
      {"{% set s = 'x' * 9999999 %}{% set ns = namespace(l=[]) %}{% for i in range(999) %}"
       "{% set ns.l = ns.l + [s ~ i] %}{% endfor %}",
       "too much text"},
      {"{{ ('a,' * 5000000).split(',') | length }}", "too m"},
      {"{% for c in 'x' * 9999999 %}{% endfor %}", "too many steps"},
      {"{{ strftime_now('%c' * 9999) }}", "too long"},
      {"{{ raise_exception('x' * 9999999) }}", "xxx"},
  };
  for (const auto& row : table) check_refused(row.source, row.says);
}

BOOST_AUTO_TEST_CASE(chat_bounds_nesting) {
  constexpr size_t kDeep = 100'000;
  const std::string table[] = {
      "{{ " + repeated("(", kDeep) + "1" + repeated(")", kDeep) + " }}",
      "{{ " + repeated("[", kDeep) + repeated("]", kDeep) + " }}",
      "{{ " + repeated("{1:", kDeep) + "1" + repeated("}", kDeep) + " }}",
      "{{ " + repeated("not ", kDeep) + "1 }}",
      "{{ " + repeated("-", kDeep) + "1 }}",
      "{{ 1" + repeated("+1", kDeep) + " }}",
      "{{ 1" + repeated("~1", kDeep) + " }}",
      "{{ 1" + repeated(" and 1", kDeep) + " }}",
      "{{ 1" + repeated("**1", kDeep) + " }}",
      "{{ 1" + repeated(" if 1 else 1", kDeep / 2) + " }}",
      "{{ a" + repeated(".a", kDeep) + " }}",
      "{{ a" + repeated("[a", kDeep) + repeated("]", kDeep) + " }}",
      "{{ a" + repeated("()", kDeep) + " }}",
      "{{ a" + repeated("(a", kDeep) + repeated(")", kDeep) + " }}",
      "{{ a" + repeated("|a", kDeep) + " }}",
      "{{ a" + repeated(" is a", kDeep) + " }}",
      repeated("{%if 1%}", kDeep) + "x",
      repeated("{%for a in b%}", 70'000),
      repeated("{%set a%}", kDeep),
      repeated("{%macro a()%}", 70'000),
      repeated("{%filter a%}", 80'000),
      "{% for " + repeated("(", kDeep) + "a" + repeated(")", kDeep) + " in b %}{% endfor %}",
      "{% if 1 %}" + repeated("{%elif 1%}", kDeep) + "{{",
  };
  for (const std::string& source : table) check_refused(source, "template:1:");
}

BOOST_AUTO_TEST_CASE(chat_bounds_the_template_and_its_variables) {
  check_refused(std::string((1 << 20) + 1, 'x'), "more than 1 MiB");
  ChatInput input;
  input.extra_json = "{\"a\": " + repeated("[", 100'000) + repeated("]", 100'000) + "}";
  check_refused("x", "extra_json", input);
  input.extra_json = "{}";
  input.messages = {{"user", std::string(9'000'000, 'x')}, {"user", std::string(9'000'000, 'y')}};
  check_refused("{% for m in messages %}{{ m.content }}{% endfor %}", "beyond 16 MiB", input);
  // Marks of every second byte cost no more than a step each.
  input.messages = {{"user", repeated("ab", 500'000)}};
  check_refused(
      "{% set s = messages[0].content.replace('a', '-') %}{% for i in range(999) %}"
      "{% set t = s ~ i %}{% endfor %}",
      "too m", input);
}

}  // namespace chainpump::models
