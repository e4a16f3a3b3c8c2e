#include "cli/quantize.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <memory>

#include "actors/os/affinity.h"
#include "actors/os/signals.h"
#include "cli/exit_status.h"
#include "cli/progress.h"
#include "graph/diagnostics.h"
#include "models/quantize/quantize_file.h"

namespace chainpump::cli {
namespace {

using models::QuantizeReport;

std::string recipe_names() {
  std::string names;
  for (const models::Recipe& recipe : models::recipes())
    names += fmt::format("{}{}", names.empty() ? "" : " ", recipe.name);
  return names;
}

std::string row(std::string_view type, const models::TypeSummary& of) {
  const std::string off =
      of.squares > 0 ? fmt::format("{:.3f} %", 100 * std::sqrt(of.squared_errors / of.squares))
                     : std::string("-");
  return fmt::format("{:6} {:>8} {:>14} {:>14} {:>10}\n", type, of.num_tensors, of.bytes_before,
                     of.bytes_after, off);
}

std::string summary(const QuantizeReport& report) {
  std::string out = fmt::format("{:6} {:>8} {:>14} {:>14} {:>10}\n", "type", "tensors",
                                "bytes before", "bytes after", "rms error");
  models::TypeSummary all;
  for (const auto& [type, of] : report.types) {
    out += row(to_string(type), of);
    all.num_tensors += of.num_tensors;
    all.bytes_before += of.bytes_before;
    all.bytes_after += of.bytes_after;
    all.squares += of.squares;
    all.squared_errors += of.squared_errors;
  }
  out += row("all", all);
  out += fmt::format("file   {:>8} {:>14} {:>14}\n", "", report.file_bytes_before,
                     report.file_bytes_after);
  for (const models::FallbackSummary& fallback : report.fallbacks)
    out += fmt::format(
        "{} in place of {} for {} of the tensors: rows of {} do not fill blocks of {}\n",
        to_string(fallback.type), to_string(fallback.wanted), fallback.num_tensors, fallback.cols,
        info(fallback.wanted).block_elements);
  if (report.input_was_quantised)
    out += "the input was quantised already: what it lost before is lost here, too\n";
  return out;
}

int fail(const Error& error) {
  std::fprintf(stderr, "chainpump: %s\n", error.message.c_str());
  return exit_status(error.code);
}

}  // namespace

std::string quantize_help() {
  return fmt::format(
      "Types: {}.\n"
      "Weights are rounded to nearest, without importance data. Vectors and norms are F32. The "
      "output\n"
      "matrix, or the embedding of a model without one, is Q8_0 under Q8_0 and else Q6_K under "
      "every\n"
      "quantised type. Q4_K_M is Q4_K with Q6_K for attn_v and ffn_down of half the layers. Where "
      "rows\n"
      "do not fill blocks of 256, Q4_K becomes Q5_0, Q5_K Q5_1, Q6_K Q8_0 (rows that do not fill "
      "32:\n"
      "F16). The same rules as llama.cpp's.",
      recipe_names());
}

int run_quantize(const QuantizeVerbOptions& options) {
  const std::optional<models::Recipe> recipe = models::find_recipe(options.type);
  if (!recipe)
    return fail(make_error(ErrorCode::invalid_argument, "--type: no type '{}'; there are {}",
                           graph::shown(options.type), recipe_names()));
  std::atomic<int> signal = 0;
  const auto listening = os::TerminationSignals::create([&signal](int number) { signal = number; });
  if (!listening.ok()) return fail(listening.error());
  models::QuantizeOptions work{.input = options.input,
                               .output = options.output,
                               .recipe = *recipe,
                               .replace = options.replace,
                               .num_threads = options.num_threads};
  if (work.num_threads == 0) work.num_threads = static_cast<int>(os::usable_cores().size());
  work.progress = byte_progress("quantizing");
  work.is_cancelled = [&signal] { return signal != 0; };
  const Result<QuantizeReport> report = models::quantize_file(work);
  end_progress();
  if (!report.ok()) {
    const int status = fail(report.error());
    return signal != 0 ? 128 + signal : status;
  }
  const std::string text = summary(*report);
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (written && std::fflush(stdout) == 0) return 0;
  return fail(make_error(ErrorCode::internal, "standard output cannot be written"));
}

}  // namespace chainpump::cli
