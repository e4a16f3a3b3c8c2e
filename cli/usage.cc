#include "cli/usage.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "graph/diagnostics.h"

namespace chainpump::cli {
namespace {

/// The verb that was being read, down to `bench link`, or the program itself.
const CLI::App& innermost(const CLI::App& app) {
  const std::vector<CLI::App*> verbs = app.get_subcommands();
  return verbs.empty() ? app : innermost(*verbs.front());
}

std::string full_name(const CLI::App& verb) {
  return verb.get_parent() == nullptr ? verb.get_name()
                                      : full_name(*verb.get_parent()) + " " + verb.get_name();
}

bool is_flag(std::string_view argument) { return argument.size() > 1 && argument.front() == '-'; }

/// The one flag that begins with `typed`, or the nearest one.
std::string flag_hint(const CLI::App& verb, std::string_view typed) {
  std::vector<std::string> names;
  for (const CLI::Option* option : verb.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  std::vector<std::string_view> beginning;
  for (const std::string& name : names)
    if (name.starts_with(typed)) beginning.push_back(name);
  if (typed.size() > 3 && beginning.size() == 1)
    return fmt::format(", did you mean '{}'?", beginning.front());
  return graph::hint(typed, {names.begin(), names.end()});
}

std::string verb_hint(const CLI::App& app, std::string_view typed) {
  std::vector<std::string_view> names;
  for (const CLI::App* verb : app.get_subcommands(nullptr))
    if (!verb->get_group().empty()) names.push_back(verb->get_name());
  return graph::hint(typed, names);
}

/// What is wrong with the first argument that nothing took, or empty if there is none.
std::string leftover_message(const CLI::App& verb, const std::vector<std::string>& leftover) {
  for (const std::string& argument : leftover) {
    if (!is_flag(argument)) continue;
    const std::string_view name = std::string_view(argument).substr(0, argument.find('='));
    return fmt::format("no flag '{}'{}", graph::shown(name), flag_hint(verb, name));
  }
  if (leftover.empty()) return {};
  const std::string_view first = leftover.front();
  if (!verb.get_subcommands(nullptr).empty())
    return fmt::format("no verb '{}'{}", graph::shown(first), verb_hint(verb, first));
  return fmt::format("'{}' was not expected", graph::shown(first));
}

}  // namespace

void refuse_empty_numbers(CLI::App& app) {
  for (CLI::App* verb : app.get_subcommands(nullptr)) refuse_empty_numbers(*verb);
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (!type.starts_with("INT") && !type.starts_with("UINT") && !type.starts_with("FLOAT"))
      continue;
    option->check(CLI::Validator(
        [](const std::string& text) { return text.empty() ? "must be a number" : std::string(); },
        ""));
  }
}

std::string is_seed(const std::string& text) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole ? std::string() : "must be a whole number from 0 to 18446744073709551615";
}

int usage_exit(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) {
    app.exit(error);
    return std::cout.flush() ? 0 : 5;
  }
  const CLI::App& verb = innermost(app);
  const std::vector<std::string> leftover = app.remaining(/*recurse=*/true);
  const bool wants_verb = !verb.get_subcommands(nullptr).empty();
  if (wants_verb && leftover.empty()) {
    // Nothing was typed, so nothing is wrong with it: show what there is.
    std::fputs(verb.help().c_str(), stderr);
    return 2;
  }
  std::string message = leftover_message(verb, leftover);
  if (message.empty()) message = error.what();
  std::fprintf(stderr, "chainpump: %s\n%s --help lists the %s\n", message.c_str(),
               full_name(verb).c_str(), wants_verb ? "verbs" : "arguments");
  return 2;
}

}  // namespace chainpump::cli
