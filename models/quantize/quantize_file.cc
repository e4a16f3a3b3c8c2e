#include "models/quantize/quantize_file.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/atomic_file.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/team.h"
#include "models/gguf/header.h"
#include "models/quantize/encode.h"

namespace chainpump::models {
namespace {

using kernels::cpu::Team;
using kernels::cpu::TeamMember;

// Each thread's part of a slab. A multiple of every block, so that a tensor, whose rows lie side by
// side, can be cut at any part.
constexpr int64_t kPartElements = int64_t{1} << 18;
constexpr int64_t kLargestBlock = 256;
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
constexpr uint32_t kQuantizationVersion = 2;  // of the block layouts, as GGUF counts them

// One thread's work on a slab.
struct Part {
  std::vector<float> values;
  std::vector<float> again;  // decoded from what is written
  std::vector<std::byte> bytes;
  double squares = 0.0;
  double squared_errors = 0.0;
  int64_t not_finite = kNone;  // the first element that is no number, before or after
  int64_t past_type = kNone;
};

int64_t first_not_finite(std::span<const float> values) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) return static_cast<int64_t>(i);
  return kNone;
}

// Elements [begin, end) of `tensor`, encoded into part.bytes.
void encode_part(const GgufTensor& tensor, DType type, int64_t begin, int64_t end, Part& part) {
  const auto count = static_cast<size_t>(end - begin);
  const auto offset = static_cast<size_t>(row_bytes(tensor.type, begin));
  const auto raw =
      tensor.bytes.subspan(offset, static_cast<size_t>(row_bytes(tensor.type, end - begin)));
  part.squares = part.squared_errors = 0.0;
  part.not_finite = part.past_type = kNone;
  part.values.resize(count);
  part.again.resize(count);
  part.bytes.resize(static_cast<size_t>(row_bytes(type, end - begin)));
  kernels::cpu::dequantize_row(tensor.type, raw, part.values);
  const int64_t bad = first_not_finite(part.values);
  if (bad != kNone) {
    part.not_finite = begin + bad;
    return;
  }
  if (tensor.type == type)
    std::copy(raw.begin(), raw.end(), part.bytes.begin());
  else
    encode(type, part.values, part.bytes);
  kernels::cpu::dequantize_row(type, part.bytes, part.again);
  const int64_t past = first_not_finite(part.again);
  if (past != kNone) part.past_type = begin + past;
  for (size_t i = 0; i < count; ++i) {
    const double value = part.values[i];
    const double error = part.again[i] - value;
    part.squares += value * value;
    part.squared_errors += error * error;
  }
}

class FileQuantizer {
 public:
  FileQuantizer(const QuantizeOptions& options, const GgufFile& file,
                std::vector<TensorChoice> choices, Team team)
      : options_(options),
        file_(file),
        choices_(std::move(choices)),
        team_(std::move(team)),
        parts_(static_cast<size_t>(options.num_threads)) {
    for (const GgufTensor& tensor : file.tensors())
      bytes_total_ += static_cast<int64_t>(tensor.bytes.size());
  }

  Result<QuantizeReport> run();

 private:
  GgufHeader make_header() const;
  Status write_tensor(size_t index, const GgufHeader& header, AtomicFile& out);
  Status check_parts(const GgufTensor& tensor, DType type) const;
  void note(const GgufTensor& tensor, const TensorChoice& choice);

  const QuantizeOptions& options_;
  const GgufFile& file_;
  std::vector<TensorChoice> choices_;
  Team team_;
  std::vector<Part> parts_;  // one per thread
  int64_t bytes_total_ = 0;
  int64_t bytes_done_ = 0;
  QuantizeReport report_;
};

GgufHeader FileQuantizer::make_header() const {
  GgufHeader header(file_);
  header.set_key("general.quantization_version", kQuantizationVersion);
  header.set_key("general.file_type", options_.recipe.file_type);
  for (size_t i = 0; i < choices_.size(); ++i) {
    const GgufTensor& tensor = file_.tensors()[i];
    header.add_tensor(tensor.name, tensor.dims, choices_[i].type);
  }
  return header;
}

Result<QuantizeReport> FileQuantizer::run() {
  const GgufHeader header = make_header();
  const std::vector<std::byte> head = header.bytes();
  report_.file_bytes_before = static_cast<int64_t>(file_.file_bytes());
  report_.file_bytes_after = static_cast<int64_t>(header.file_bytes());
  ASSIGN_OR_RETURN(AtomicFile out,
                   AtomicFile::create(options_.output, report_.file_bytes_after, options_.replace));
  RETURN_IF_ERROR(out.write(head));
  for (size_t i = 0; i < choices_.size(); ++i) RETURN_IF_ERROR(write_tensor(i, header, out));
  RETURN_IF_ERROR(out.commit());
  return std::move(report_);
}

// In slabs of one part per thread, written in order.
Status FileQuantizer::write_tensor(size_t index, const GgufHeader& header, AtomicFile& out) {
  const GgufTensor& tensor = file_.tensors()[index];
  const DType type = choices_[index].type;
  const int64_t count = tensor.rows() * tensor.cols();
  const int64_t slab = kPartElements * team_.size();
  TypeSummary& summary = report_.types[type];
  uint64_t written = 0;
  for (int64_t begin = 0; begin < count; begin += slab) {
    if (options_.is_cancelled && options_.is_cancelled())
      return make_error(ErrorCode::cancelled, "{}: cancelled, nothing is left there",
                        options_.output.string());
    const int64_t end = std::min(count, begin + slab);
    const auto raw = tensor.bytes.subspan(static_cast<size_t>(row_bytes(tensor.type, begin)),
                                          static_cast<size_t>(row_bytes(tensor.type, end - begin)));
    file_.read_ahead(raw);
    team_.run([&](TeamMember& member) {
      const auto share = kernels::cpu::share_of(member, end - begin, kLargestBlock);
      encode_part(tensor, type, begin + share.begin, begin + share.end,
                  parts_[static_cast<size_t>(member.index())]);
    });
    file_.release_pages(raw);
    RETURN_IF_ERROR(check_parts(tensor, type));
    for (const Part& part : parts_) {
      RETURN_IF_ERROR(out.write(part.bytes));
      written += part.bytes.size();
      summary.squares += part.squares;
      summary.squared_errors += part.squared_errors;
    }
    bytes_done_ += static_cast<int64_t>(raw.size());
    if (options_.progress) options_.progress(bytes_done_, bytes_total_);
  }
  note(tensor, choices_[index]);
  return out.write(std::vector<std::byte>(header.padding(written)));
}

Status FileQuantizer::check_parts(const GgufTensor& tensor, DType type) const {
  for (const Part& part : parts_) {
    if (part.not_finite != kNone)
      return make_error(ErrorCode::bad_file, "{}: tensor '{}': element {} is NaN or infinite",
                        options_.input.string(), printable(tensor.name), part.not_finite);
    if (part.past_type != kNone)
      return make_error(
          ErrorCode::bad_file, "{}: tensor '{}': element {} or its block is too large for {}",
          options_.input.string(), printable(tensor.name), part.past_type, to_string(type));
  }
  return ok_status();
}

void FileQuantizer::note(const GgufTensor& tensor, const TensorChoice& choice) {
  TypeSummary& summary = report_.types[choice.type];
  ++summary.num_tensors;
  summary.bytes_before += static_cast<int64_t>(tensor.bytes.size());
  summary.bytes_after += tensor.rows() * row_bytes(choice.type, tensor.cols());
  report_.input_was_quantised |= info(tensor.type).block_elements > 1 && tensor.type != choice.type;
  if (choice.type == choice.wanted) return;
  for (FallbackSummary& fallback : report_.fallbacks)
    if (fallback.wanted == choice.wanted && fallback.cols == tensor.cols()) {
      ++fallback.num_tensors;
      return;
    }
  report_.fallbacks.push_back({choice.wanted, choice.type, tensor.cols(), 1});
}

// An output that is its own input under any name, even under the name it is written by.
Status check_apart(const QuantizeOptions& options) {
  if (!is_same_file(options.input, options.output) &&
      !is_same_file(options.input, partial_path(options.output)))
    return ok_status();
  return make_error(ErrorCode::invalid_argument, "{}: the output is the input, {}",
                    options.output.string(), options.input.string());
}

}  // namespace

Result<QuantizeReport> quantize_file(const QuantizeOptions& options) {
  RETURN_IF_ERROR(check_apart(options));
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(options.input));
  ASSIGN_OR_RETURN(const LlamaConfig config, read_llama_config(file));
  if (file.find_int("split.count").value_or(1) > 1)
    return make_error(ErrorCode::unimplemented,
                      "{}: one of several files of a model; join them first",
                      options.input.string());
  ASSIGN_OR_RETURN(Team team,
                   Team::create({.num_threads = options.num_threads, .cores = {}, .spin = false}));
  FileQuantizer quantizer(options, file, choose_types(file, config, options.recipe),
                          std::move(team));
  return quantizer.run();
}

}  // namespace chainpump::models
