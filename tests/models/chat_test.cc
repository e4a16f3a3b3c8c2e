// The language of chat templates, row by row as jinja2 renders it (set up as the oracle test does),
// and its errors with their places. Hostile templates are in chat_limits_test.cc.
#include <boost/test/unit_test.hpp>

#include "models/chat/chat_template.h"

namespace chainpump::models {
namespace {

struct Row {
  std::string_view source;
  std::string_view text;
};

ChatInput small_chat() {
  ChatInput input;
  input.messages = {{"user", "Hi"}, {"assistant", "Yo!"}};
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  input.now_unix_s = 1'760'000'000;
  return input;
}

Result<std::string> render(std::string_view source, const ChatInput& input = small_chat()) {
  const Result<ChatTemplate> parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.error();
  return parsed->render_text(input);
}

void check_text(const Row& row) {
  const Result<std::string> text = render(row.source);
  BOOST_TEST_CONTEXT(row.source) {
    BOOST_TEST_REQUIRE(text.ok(), (text.ok() ? "" : text.error().message));
    BOOST_TEST(*text == row.text);
  }
}

// The rendered pieces as text, what came from messages in angle quotes.
std::string with_marks(std::string_view source, const ChatInput& input) {
  const auto pieces = ChatTemplate::parse(source).value().render(input);
  BOOST_TEST_REQUIRE(pieces.ok(), (pieces.ok() ? "" : pieces.error().message));
  std::string out;
  for (size_t i = 0; i < pieces->size(); ++i) {
    const PromptPiece& piece = (*pieces)[i];
    BOOST_TEST(!piece.text.empty());
    if (i > 0) BOOST_TEST(piece.from_message != (*pieces)[i - 1].from_message);
    out += piece.from_message ? "\xC2\xAB" + piece.text + "\xC2\xBB" : piece.text;
  }
  return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(chat_statements) {
  const Row table[] = {
      {"{% if x is defined %}a{% elif messages %}b{% else %}c{% endif %}", "b"},
      {"{% for i in range(3) %}{{ loop.index }}{{ loop.revindex0 }}{% if not loop.last %},{% endif "
       "%}{% else %}none{% endfor %}",
       "12,21,30"},
      {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
      {"{% for i in range(9) if i % 2 %}{% if i == 7 %}{% break %}{% endif %}{% if i == 3 %}{% "
       "continue %}{% endif %}{{ i }}{% endfor %}",
       "15"},
      {"{% for a, b in {'x': 1, 'y': 2}.items() %}{{ a }}={{ b }};{% endfor %}", "x=1;y=2;"},
      {"{% set a = 1 %}{% for i in [2] %}{% set a = i %}{% endfor %}{{ a }}", "1"},
      {"{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor "
       "%}{{ ns.n }}",
       "6"},
      {"{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"},
      {"{% set t %}x{{ 1 }}{% endset %}[{{ t }}]", "[x1]"},
      {"{% set t | upper | trim %} ab {% endset %}[{{ t }}]", "[AB]"},
      {"{% macro m(a, b='z') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}", "1z12"},
      {"{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}", "<in>"},
      {"{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "321"},
      {"{% filter upper %}ab{% endfilter %}", "AB"},
      {"{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "3"},
      {"{% generation %}g{% endgeneration %}", "g"},
      {"{% raw %}{{ x }}{% endraw %}{# no #}", "{{ x }}"},
      {"a  {%- if true -%}  b  {%- endif %}  c", "ab  c"},
      {"  {% if true %}\n  x\n  {% endif %}\n  y\n", "  x\n  y"},
      {"a\n{{ 1 }}\nb\n", "a\n1\nb"},
  };
  for (const Row& row : table) check_text(row);
}

BOOST_AUTO_TEST_CASE(chat_expressions) {
  const Row table[] = {
      {"{{ 1 + 2 * 3 ** 2 - 7 // 2 - 7 % 4 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2.0 * 3 }} "
       "{{ 1e3 }}",
       "13 3.5 -4 2 6.0 1000.0"},
      {"{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ {'k': (1,)} ~ true }}", "a1None[1, 'b']{'k': (1,)}True"},
      {"{{ 'ab' * 2 }}{{ [1] * 2 }}{{ [1] + [2] }}{{ 'a' 'b' }}", "abab[1, 1][1, 2]ab"},
      {"{{ 1 < 2 < 3 }} {{ 'b' in 'abc' }} {{ 1 not in [2] }} {{ 'k' in {'k': 0} }} {{ 1 == 1.0 }} "
       "{{ 'a' < 'b' }}",
       "True True True True True True"},
      {"{{ 'x' if false }}[{{ 'x' if false else 'y' }}]{{ 0 or 'o' }}{{ 1 and 'p' }}{{ not 1 }}",
       "[y]opFalse"},
      {"{{ 'abcdef'[1:4] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::-1] }} {{ [1,2,3][:2] }} {{ 'äöü'[1] "
       "}} {{ 'äöü'[-1:] }} {{ none[1:] }}",
       "bcd ef fedcba [1, 2] ö ü "},
      {"{{ {'a': {'b': [10, 20]}}.a.b[1] }}{{ {'a': 1}['a'] }}{{ {'a': 1}.z }}{{ [1].0 }}", "2011"},
      {"{{ nothing }}{{ nothing is defined }}{{ nothing | default('d') }}{{ '' | default('e', "
       "true) }}",
       "Falsede"},
      {"{{ messages[0].role }} {{ messages[-1]['content'] | length }} {{ messages | length }}",
       "user 3 2"},
      {"{{ 'tab\\t\\'q\\'' }}{{ \"d\\\"\" }}", "tab\t'q'd\""},
  };
  for (const Row& row : table) check_text(row);
}

BOOST_AUTO_TEST_CASE(chat_filters) {
  const Row table[] = {
      {"{{ ' a ' | trim }}{{ 'Ab' | upper }}{{ 'Ab' | lower }}{{ 'ab cd' | title }}{{ 'ab' | "
       "capitalize }}",
       "aABabAb CdAb"},
      {"{{ 'a-b-c' | replace('-', '+', 1) }} {{ 'aXb'.replace('X', '') }}", "a+b-c ab"},
      {"{{ [1, 2, 3] | join(', ') }} {{ [{'a': 1}, {'a': 2}] | map(attribute='a') | join('+') }} "
       "{{ ['a'] | map('upper') | list }}",
       "1, 2, 3 1+2 ['A']"},
      {"{{ [{'a': [1, 2]}] | map(attribute='a.1') | join }}{% for p in ['', '-1', '99999999999'] %}"
       "[{{ [{'': 4, '-1': 5}] | map(attribute=p) | join }}]{% endfor %}",
       "2[4][5][]"},
      {"{{ {'b': [1, 2.5, none, true], 'a': 'é\"<'} | tojson }} {{ {'b': 1, 'a': []} | "
       "tojson(indent=2, sort_keys=true) }}",
       "{\"b\": [1, 2.5, null, true], \"a\": \"é\\\"<\"} {\n  \"a\": [],\n  \"b\": 1\n}"},
      {"{{ 'é' | tojson(ensure_ascii=true) }}{{ [1, 2] | tojson(separators=(',', ':')) }}",
       "\"\\u00e9\"[1,2]"},
      {"{{ [3, 1, 2] | sort }} {{ ['b', 'A'] | sort | first }} {{ {'b': 1, 'a': 2} | dictsort }} "
       "{{ [1, 1, 2] | unique | list }}",
       "[1, 2, 3] A [('a', 2), ('b', 1)] [1, 2]"},
      {"{{ [1, 2, 3] | sum }} {{ [1, 2, 3] | max }} {{ [1, 2] | last }} {{ [1, 2] | reverse | list "
       "}} {{ 'abc' | reverse }}",
       "6 3 2 [2, 1] cba"},
      {"{{ '12' | int + 1 }} {{ 'x' | int }} {{ '1.5' | float }} {{ -3 | abs }} {{ 2.5 | round }} "
       "{{ 2.2 | round(0, 'ceil') }}",
       "13 0 1.5 3 2.0 3.0"},
      {"{{ 'a\\nb' | indent(2) }} {{ 'a\\nb' | indent(2, true) }} {{ 5 | string ~ '!' }} {{ 'abc' "
       "| length }} {{ {'a': 1} | items | list }}",
       "a\n  b   a\n  b 5! 3 [('a', 1)]"},
      {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | "
       "rejectattr('role', 'in', ['user']) | list | length }}",
       "1 1"},
      {"{{ [0, 1, none] | select | list }} {{ [1, 2, 3] | reject('odd') | list }} {{ none | select "
       "| list }} {{ none | map('upper') | list }}",
       "[1] [2] [] []"},
      {"{{ 'yes' if [] | select else 'no' }} {{ [1] | map('string') is sequence }} {{ 1 in ([1] | "
       "select) }}",
       "yes False True"},
      {"{{ '<' | safe + '<a & \"b\">' }} {{ 'x' + '\\'' | safe + '<' }} {{ '<' | safe ~ '<' }}",
       "<&lt;a &amp; &#34;b&#34;&gt; x'&lt; <<"},
  };
  for (const Row& row : table) check_text(row);
}

BOOST_AUTO_TEST_CASE(chat_tests_and_methods) {
  const Row table[] = {
      {"{{ -2 | round }} {{ true | round }} {{ 3 | round(0, 'floor') }}", "-2 1 3.0"},
      {"{{ 1 is integer }} {{ 1.5 is float }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is "
       "iterable }} {{ none is none }} {{ true is boolean }} {{ 3 is odd }} {{ 4 is divisibleby(2) "
       "}} {{ 1 is not number }} {{ 'a' is in ['a'] }} {{ 1 is eq(1) }}",
       "True True True True True True True True True False True True"},
      {"{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ '  a'.lstrip() }}|{{ 'a\\n'.rstrip('\\n') "
       "}}",
       "x|a|a|a"},
      {"{{ 'a,b,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1)[-1] }} {{ "
       "'a,b,c'.rsplit(',', 1)[0] }} {{ 'a\\nb'.splitlines() }}",
       "['a', 'b', 'c'] ['a', 'b'] b,c a,b ['a', 'b']"},
      {"{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ "
       "'abcb'.rfind('b') }} {{ 'abab'.count('ab') }}",
       "True True 2 3 2"},
      {"{{ '{} {}'.format(1, 'x') }} {{ '{1}{0}{k}{{}}'.format('a', 'b', k='c') }} {{ ', "
       "'.join(['a', 'b']) }} {{ 'ab'.removeprefix('a') }} {{ 'AB'.lower() }} {{ '12'.isdigit() }}",
       "1 x bac{} a, b b ab True"},
      {"{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.keys() | list }}{{ {'a': "
       "1}.values() | list }} {{ [1, 2].index(2) }} {{ [1, 1].count(1) }}",
       "12['a'][1] 1 2"},
      {"{{ strftime_now('%Y-%m-%d') }} {{ range(1, 7, 2) | list }} {{ dict(a=1) }}",
       "2025-10-09 [1, 3, 5] {'a': 1}"},
  };
  for (const Row& row : table) check_text(row);
}

BOOST_AUTO_TEST_CASE(chat_errors_name_their_place) {
  using enum ErrorCode;
  const struct {
    std::string_view source;
    ErrorCode code;
    std::string_view says;
  } table[] = {
      {"a\n {{ }}", invalid_argument, "template:2:5: "},
      {"{% if x %}", invalid_argument, "template:1:"},
      {"{% endif %}", invalid_argument, "template:1:1: "},
      {"{{ 'a", invalid_argument, "template:1:4: "},
      {"{{ 1", invalid_argument, "template:1:"},
      {"{# a", invalid_argument, "template:1:3: "},
      {"{% raw %}", invalid_argument, "template:1:"},
      {"{{ 1 $ 2 }}", invalid_argument, "template:1:6: "},
      {"{% break %}", invalid_argument, "outside of a loop"},
      {"{% for a, b in [1] %}{% endfor %}", invalid_argument, "'int' is not iterable"},
      {"\n\n{{ raise_exception('no ' ~ 'way') }}", invalid_argument, "template:3:4: no way"},
      {"{{ nothing.x }}", invalid_argument, "'nothing' is undefined"},
      {"{{ nothing() }}", invalid_argument, "'nothing' is undefined"},
      {"{{ 1 + 'a' }}", invalid_argument, "template:1:4: '+' does not work between int and str"},
      {"{{ 1 / 0 }}", invalid_argument, "division by zero"},
      {"{{ 1 % 0 }}", invalid_argument, "division by zero"},
      {"{{ [1] < ['a'] }}", invalid_argument, "'<' does not work"},
      {"{{ 'a'[::0] }}", invalid_argument, "step is 0"},
      {"{% set x.y = 1 %}", invalid_argument, "only attributes of a namespace"},
      {"{{ [{'a': {}}] | map(attribute='a..b') | join }}", invalid_argument, "'' is undefined"},
      {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", invalid_argument, "takes 1 arguments"},
      {"{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", invalid_argument, "no parameter 'b'"},
      {"{% set g = [1] | select %}{{ g | list }}{{ g | list }}", invalid_argument, "only once"},
      {"{{ [1] | select | tojson }}", invalid_argument, "generator has no JSON form"},
      {"{{ [1] | select | length }}", invalid_argument, "'generator' has no length"},
      {"{{ range | tojson }}", invalid_argument, "no JSON form"},
      {"{{ 'a' | tojson(indent=9999) }}", invalid_argument, "indent"},
      {"{{ ''.join(1) }}", invalid_argument, "'int' is not iterable"},
      {"{{ 'a'.split('') }}", invalid_argument, "empty separator"},
      {"{{ '{'.format(1) }}", invalid_argument, "single brace"},
      {"{{ '{} {}'.format(1) }}", invalid_argument, "without an argument"},
      {"{% include 'x' %}", unimplemented, "include"},
      {"{% extends 'x' %}", unimplemented, "extends"},
      {"{% block x %}{% endblock %}", unimplemented, "block"},
      {"{{ f(*a) }}", unimplemented, "'*' in arguments"},
      {"{{ 1 | frobnicate }}", unimplemented, "filter 'frobnicate'"},
      {"{{ 1 is frobnicated }}", unimplemented, "test 'frobnicated'"},
      {"{{ [].append(1) }}", unimplemented, "'append' (values never change)"},
      {"{{ {}.update({}) }}", unimplemented, "'update' (values never change)"},
      {"{{ 'a'.zfill(3) }}", unimplemented, "string method 'zfill'"},
      {"{{ '%s' % 1 }}", unimplemented, "formatting with %"},
      {"{{ '{:>9}'.format(1) }}", unimplemented, "format field '{:>9}'"},
      {"{{ 9223372036854775807 + 1 }}", unimplemented, "64 bits"},
      {"{{ 9223372036854775808 }}", unimplemented, "64 bits"},
      {"{{ ('<' | safe).replace('<', 'x') }}", unimplemented, "replace of a safe string"},
      {"{{ cycler('a') }}", unimplemented, "global 'cycler'"},
  };
  for (const auto& row : table) {
    const Result<std::string> text = render(row.source);
    BOOST_TEST_CONTEXT(row.source) {
      BOOST_TEST_REQUIRE(!text.ok(), (text.ok() ? *text : ""));
      BOOST_TEST((text.error().code == row.code), to_string(text.error().code));
      BOOST_TEST(text.error().message.starts_with("template:"), text.error().message);
      BOOST_TEST(text.error().message.find(row.says) != std::string::npos, text.error().message);
    }
  }
}

BOOST_AUTO_TEST_CASE(chat_refuses_variables_that_are_no_objects) {
  for (const std::string_view json : {"", "[1]", "{", "{\"a\": 1} x", "7"}) {
    ChatInput input = small_chat();
    input.extra_json = json;
    BOOST_TEST((render("x", input).error().code == ErrorCode::invalid_argument));
    input = small_chat();
    input.messages[0].extra_json = json;
    const auto text = render("x", input);
    BOOST_TEST_REQUIRE(!text.ok());
    BOOST_TEST((text.error().code == ErrorCode::invalid_argument));
    BOOST_TEST(text.error().message.find("extra_json") != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(chat_text_of_messages_stays_marked) {
  ChatInput input;
  input.messages = {{"user", "ab<c"}, {"od<d", " x y "}};
  input.messages[1].extra_json = R"({"name": "n", "tool_calls": [{"k": "v"}], "number": 7})";
  input.extra_json = R"({"tools": [{"t": "q"}]})";
  const Row table[] = {
      {"u{{ u }}", "u"},
      {"{% set u = messages[0].content %}[{{ u }}]", "[«ab<c»]"},
      {"{{ messages[0].role }}|{{ messages[1].role }}", "user|«od<d»"},
      {"{{ '<' + messages[0].content + '>' }}", "<«ab<c»>"},
      {"{{ messages[0].content ~ 1 ~ messages[0].content }}", "«ab<c»1«ab<c»"},
      {"-{{ messages[0].content[1:3] }}-", "-«b<»-"},
      {"-{{ messages[0].content[::-1] }}-", "-«c<ba»-"},
      {"-{{ messages[0].content[0] }}-", "-«a»-"},
      {"-{{ messages[1].content.strip() }}-", "-«x y»-"},
      {"-{{ messages[1].content | trim | upper | title | capitalize }}-", "-«X y»-"},
      {"-{{ messages[1].content.split()[1] }}-", "-«y»-"},
      {"-{{ messages[0].content.replace('b', '[b]') }}-", "-«a»[b]«<c»-"},
      {"-{{ '[x]' | replace('x', messages[0].content) }}-", "-[«ab<c»]-"},
      {"-{{ [messages[0].content, 'z'] | join('+') }}-", "-«ab<c»+z-"},
      {"-{{ ['y', 'z'] | join(messages[0].content) }}-", "-y«ab<c»z-"},
      {"-{{ '<{}>'.format(messages[0].content) }}-", "-<«ab<c»>-"},
      {"-{{ messages[0].content * 2 }}-", "-«ab<cab<c»-"},
      {"-{% for c in messages[0].content %}{{ c }},{% endfor %}", "-«a»,«b»,«<»,«c»,"},
      {"-{{ messages[0].content | list | reverse | join }}-", "-«c<ba»-"},
      {"-{{ messages[0].content | indent(2, true) }}", "-  «ab<c»"},
      {"-{{ messages[0].content | tojson }}-", "-\"«ab<c»\"-"},
      {"-{{ '<' | safe + messages[0].content }}-", "-<«ab&lt;c»-"},
      {"-{{ [messages[0].content] }}-", "-['«ab<c»']-"},
      {"{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}", "<«ab<c»>"},
      {"{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(messages[0].content) }}", "<«ab<c»>"},
      {"{% filter upper %}a{{ messages[0].content }}{% endfilter %}", "A«AB<C»"},
      {"{% set ns = namespace() %}{% set ns.x = messages[0].content %}-{{ ns.x }}", "-«ab<c»"},
      {"{{ {messages[0].content: 1} | items | first | first }}", "«ab<c»"},
      {"-{{ messages[1].name }}{{ messages[1].number }}-", "-«n»7-"},
      {"{{ messages[1].tool_calls | tojson }}", "[{\"«k»\": \"«v»\"}]"},
      {"{{ tools[0].t }}{{ tools[0] | list | first }}", "«qt»"},
      {"{{ messages[0].content or 'z' }}{{ messages[0].content | default('z') }}", "«ab<cab<c»"},
      {"{{ strftime_now(messages[0].content) }}", "«ab<c»"},
  };
  for (const Row& row : table) BOOST_TEST_CONTEXT(row.source) {
      BOOST_TEST(with_marks(row.source, input) == row.text);
    }
}

BOOST_AUTO_TEST_CASE(chat_templates_never_change_and_can_be_used_again) {
  const ChatTemplate parsed =
      ChatTemplate::parse("{% set g = messages | map(attribute='role') %}{{ g | join }}").value();
  BOOST_TEST(parsed.render_text(small_chat()).value() == "userassistant");
  BOOST_TEST(parsed.render_text(small_chat()).value() == "userassistant");
  BOOST_TEST(parsed.render_text({}).value() == "");
}

}  // namespace chainpump::models
