// Byte form of a microbatch and of its result: little-endian, no padding, no version of its own
// (the frame header carries the protocol's). u8 flags are 0 or 1. list(x) is a u32 count followed
// by that many x; string is list(u8). Decoding checks each count against the bytes that remain and
// against the limits before anything is allocated, and nothing may follow the last field.
//
//   Microbatch          u64 id | i64 slowest_ns | i32 slowest_stage
//                       i32 stages.first | i32 stages.last | u8 keep_log | u8 canary
//                       list(u64) released
//                       list(i32 from, i32 to) copies
//                       list(SequenceDescriptor)
//                       list(SequenceSlice)
//   SequenceDescriptor  u64 id | u64 identity | u32 sequence_index | SamplingParams
//                       i32 score.first_position | string score.full_path
//                       list(i32) prompt | list(i32) generated
//   SamplingParams      f32 temperature | f32 top_p | f32 min_p | i32 top_k
//                       f32 repetition_penalty | f32 presence_penalty | f32 frequency_penalty
//                       u64 seed | i32 max_new_tokens | i32 num_top_logprobs | u8 ignore_eos
//                       list(i32 token, f32 bias) | list(string) stop | list(i32) stop_token_ids
//   SequenceSlice       u64 id | i32 first_position | i32 table_offset | u8 sample
//                       list(i32) tokens | list(i32) new_blocks
//
//   StepResult          u64 id | i64 slowest_ns | i32 slowest_stage
//                       list(TokenResult) | list(ScoreResult)
//   TokenResult         u64 id | i32 position | i32 token | f32 logprob | u8 finish
//                       i64 text_bytes | list(i32 token, f32 logprob)
//   ScoreResult         u64 id | i32 position | f32 logprob | i32 argmax | u8 failed
#include "graph/microbatch.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/byte_io.h"
#include "base/check.h"

namespace chainpump::graph {
namespace {

constexpr int32_t kMaxPathBytes = 4096;

// Where both forms carry the slowest stage's time: note_step_time() patches it in place.
constexpr size_t kSlowestAt = sizeof(uint64_t);
constexpr size_t kSlowestStageAt = kSlowestAt + sizeof(int64_t);
constexpr size_t kHeadBytes = kSlowestStageAt + sizeof(int32_t);

// Least bytes of one element: what a lying count is held against.
constexpr size_t kSamplingBytes = 4 * 7 + 8 + 4 + 4 + 1 + 3 * 4;
constexpr size_t kDescriptorBytes = 8 + 8 + 4 + kSamplingBytes + 4 + 4 + 2 * 4;
constexpr size_t kSliceBytes = 8 + 4 + 4 + 1 + 2 * 4;
constexpr size_t kTokenResultBytes = 8 + 4 + 4 + 4 + 1 + 8 + 4;
constexpr size_t kScoreResultBytes = 8 + 4 + 4 + 4 + 1;

class Encoder {
 public:
  explicit Encoder(std::vector<std::byte>& out) : writer_(out) {}

  template <typename... T>
  void numbers(T... values) {
    (writer_.write(values), ...);
  }
  void count(size_t n) {
    CHECK_LE(n, std::numeric_limits<uint32_t>::max());
    writer_.write(static_cast<uint32_t>(n));
  }
  void string(std::string_view text) {
    count(text.size());
    writer_.write_string(text);
  }
  void tokens(std::span<const TokenId> values) {
    count(values.size());
    writer_.write_bytes(std::as_bytes(values));
  }
  void pairs(std::span<const std::pair<TokenId, float>> values) {
    count(values.size());
    for (const auto& [token, number] : values) numbers(token, number);
  }
  void flag(bool value) { writer_.write(static_cast<uint8_t>(value)); }

  template <typename Message>
  void head(const Message& message) {
    numbers(message.id.value, int64_t{message.slowest.count()}, message.slowest_stage.value);
  }
  void sampling(const SamplingParams& p) {
    numbers(p.temperature, p.top_p, p.min_p, p.top_k);
    numbers(p.repetition_penalty, p.presence_penalty, p.frequency_penalty);
    numbers(p.seed, p.max_new_tokens, p.num_top_logprobs);
    flag(p.ignore_eos);
    pairs(p.logit_bias);
    count(p.stop.size());
    for (const std::string& text : p.stop) string(text);
    tokens(p.stop_token_ids);
  }
  void descriptor(const SequenceDescriptor& d) {
    numbers(d.id.value, d.identity, d.sequence_index);
    sampling(d.sampling);
    numbers(d.score.first_position);
    string(d.score.full_path);
    tokens(d.prompt);
    tokens(d.generated);
  }
  void slice(const SequenceSlice& s) {
    numbers(s.id.value, s.first_position, s.table_offset);
    flag(s.sample);
    tokens({s.tokens.data(), s.tokens.size()});
    count(s.new_blocks.size());
    for (const KvBlockId block : s.new_blocks) numbers(block.value);
  }

 private:
  ByteWriter writer_;
};

/// Reads on after a failure (yielding zeros and empty lists) and remembers the first one.
class Decoder {
 public:
  Decoder(std::span<const std::byte> bytes, const MicrobatchLimits& limits)
      : reader_(bytes), limits_(limits) {}

  template <typename T>
  T number() {
    const T value = reader_.read<T>();
    if (!reader_.ok()) fail("the bytes end too soon");
    return error_.empty() ? value : T{};
  }
  template <typename T>
  T within(std::string_view field, T low, T high) {
    const T value = number<T>();
    if (!(value >= low && value <= high)) {
      fail(fmt::format("{} is {}, must be in [{}, {}]", field, value, low, high));
      return low;
    }
    return value;
  }
  bool flag(std::string_view field) { return within<uint8_t>(field, 0, 1) != 0; }
  /// A count of elements of at least `element_bytes` each.
  size_t count(std::string_view field, int64_t most, size_t element_bytes) {
    const auto n = number<uint32_t>();
    if (int64_t{n} > most) {
      fail(fmt::format("{} has {} entries, the limit is {}", field, n, most));
    } else if (n > reader_.remaining() / element_bytes) {
      fail(fmt::format("{} has {} entries, more than the {} bytes left can hold", field, n,
                       reader_.remaining()));
    }
    return error_.empty() ? n : 0;
  }
  std::string string(std::string_view field, int64_t bytes_max) {
    return std::string(reader_.take_string(count(field, bytes_max, 1)));
  }
  TokenId token(std::string_view field) {
    return within<TokenId>(field, 0, limits_.vocabulary_size - 1);
  }
  std::vector<TokenId> tokens(std::string_view field, int64_t most) {
    std::vector<TokenId> out(count(field, most, sizeof(TokenId)));
    for (TokenId& value : out) value = token(field);
    return out;
  }
  /// A log-probability: minus infinity is one (of a token that cannot be), NaN is not.
  float logprob(std::string_view field) {
    return within<float>(field, -std::numeric_limits<float>::infinity(), 0.001f);
  }

  template <typename Message>
  void head(Message& message) {
    message.id = MicrobatchId(number<uint64_t>());
    message.slowest =
        Duration(within<int64_t>("slowest_ns", 0, std::numeric_limits<int64_t>::max()));
    message.slowest_stage =
        StageIndex(within<int32_t>("slowest_stage", 0, std::numeric_limits<int32_t>::max()));
  }
  KvBlockId block(std::string_view field) {
    return KvBlockId(within<int32_t>(field, 0, limits_.num_kv_blocks - 1));
  }
  SamplingParams sampling();
  SequenceDescriptor descriptor();
  SequenceSlice slice();
  TokenResult token_result();
  ScoreResult score_result();
  Result<Microbatch> microbatch();
  Result<StepResult> step_result();

 private:
  void fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    reader_.fail();
  }
  /// Whether all was well and nothing is left.
  Status finish(std::string_view what) {
    if (error_.empty() && reader_.remaining() != 0)
      fail(fmt::format("{} bytes follow the last field", reader_.remaining()));
    if (error_.empty()) return ok_status();
    return make_error(ErrorCode::invalid_argument, "{}: {} (byte {})", what, error_,
                      reader_.offset());
  }

  ByteReader reader_;
  const MicrobatchLimits& limits_;
  std::string error_;
};

SamplingParams Decoder::sampling() {
  SamplingParams p;
  p.temperature = number<float>();
  p.top_p = number<float>();
  p.min_p = number<float>();
  p.top_k = number<int32_t>();
  p.repetition_penalty = number<float>();
  p.presence_penalty = number<float>();
  p.frequency_penalty = number<float>();
  p.seed = number<uint64_t>();
  p.max_new_tokens = number<int32_t>();
  p.num_top_logprobs = number<int32_t>();
  p.ignore_eos = flag("ignore_eos");
  p.logit_bias.resize(count("logit_bias", kMaxLogitBiases, 8));
  for (auto& [token_id, bias] : p.logit_bias) {
    token_id = token("logit_bias");
    bias = number<float>();
  }
  p.stop.resize(count("stop", kMaxStopStrings, 4));
  for (std::string& text : p.stop) text = string("stop", kMaxStopBytes);
  p.stop_token_ids = tokens("stop_token_ids", kMaxStopTokens);
  if (error_.empty()) {
    if (Status valid = validate(p, limits_.vocabulary_size); !valid.ok())
      fail(std::move(valid).error().message);
  }
  return p;
}

SequenceDescriptor Decoder::descriptor() {
  SequenceDescriptor d;
  d.id = SequenceId(number<uint64_t>());
  d.identity = number<uint64_t>();
  d.sequence_index = number<uint32_t>();
  d.sampling = sampling();
  d.score.first_position = within<int32_t>("score.first_position", -1, limits_.context_tokens - 1);
  d.score.full_path = string("score.full_path", kMaxPathBytes);
  if (d.score.full_path.find('\0') != std::string::npos) fail("score.full_path holds a NUL byte");
  d.prompt = tokens("prompt", limits_.context_tokens);
  d.generated = tokens("generated", limits_.context_tokens - static_cast<int64_t>(d.prompt.size()));
  return d;
}

SequenceSlice Decoder::slice() {
  SequenceSlice s;
  s.id = SequenceId(number<uint64_t>());
  s.first_position = within<int32_t>("first_position", 0, limits_.context_tokens - 1);
  s.table_offset = within<int32_t>("table_offset", 0, limits_.num_kv_blocks);
  s.sample = flag("sample");
  s.tokens =
      tokens("tokens", std::min(limits_.max_tokens, limits_.context_tokens - s.first_position));
  if (s.tokens.empty()) fail("a slice has no tokens");
  s.new_blocks.resize(count("new_blocks", limits_.num_kv_blocks - s.table_offset, sizeof(int32_t)));
  for (KvBlockId& id : s.new_blocks) id = block("new_blocks");
  return s;
}

TokenResult Decoder::token_result() {
  TokenResult t;
  t.id = SequenceId(number<uint64_t>());
  t.position = within<int32_t>("position", 0, limits_.context_tokens);
  t.token = token("token");
  t.logprob = logprob("logprob");
  t.finish = static_cast<FinishReason>(
      within<uint8_t>("finish", 0, static_cast<uint8_t>(FinishReason::failed)));
  t.text_bytes = within<int64_t>("text_bytes", -1, std::numeric_limits<int64_t>::max());
  t.top_logprobs.resize(count("top_logprobs", kMaxTopLogprobs, 8));
  for (auto& [token_id, value] : t.top_logprobs) {
    token_id = token("top_logprobs");
    value = logprob("top_logprobs");
  }
  return t;
}

ScoreResult Decoder::score_result() {
  ScoreResult s;
  s.id = SequenceId(number<uint64_t>());
  s.position = within<int32_t>("position", 0, limits_.context_tokens - 1);
  s.logprob = logprob("logprob");
  s.argmax = token("argmax");
  s.failed = flag("failed");
  return s;
}

Result<Microbatch> Decoder::microbatch() {
  Microbatch m;
  head(m);
  m.stages.first = within<int32_t>("stages.first", 0, StageSpan::kEnd);
  m.stages.last = within<int32_t>("stages.last", m.stages.first, StageSpan::kEnd);
  m.keep_log = flag("keep_log");
  m.canary = flag("canary");
  m.released.resize(count("released", limits_.max_sequences, 8));
  for (SequenceId& id : m.released) id = SequenceId(number<uint64_t>());
  m.copies.resize(count("copies", limits_.max_sequences, 2 * sizeof(int32_t)));
  for (BlockCopy& copy : m.copies) {
    copy.from = block("copies");
    copy.to = block("copies");
  }
  const size_t num_descriptors = count("descriptors", limits_.max_sequences, kDescriptorBytes);
  for (size_t i = 0; i < num_descriptors && error_.empty(); ++i)
    m.descriptors.push_back(descriptor());
  const size_t num_slices = count("slices", limits_.max_sequences, kSliceBytes);
  for (size_t i = 0; i < num_slices && error_.empty(); ++i) m.slices.push_back(slice());
  if (error_.empty() && m.num_tokens() > limits_.max_tokens)
    fail(fmt::format("{} tokens, the limit is {}", m.num_tokens(), limits_.max_tokens));
  RETURN_IF_ERROR(finish("microbatch"));
  return m;
}

Result<StepResult> Decoder::step_result() {
  StepResult r;
  head(r);
  const size_t num_tokens = count("tokens", limits_.max_sequences, kTokenResultBytes);
  for (size_t i = 0; i < num_tokens && error_.empty(); ++i) r.tokens.push_back(token_result());
  const size_t num_scores = count("scores", limits_.max_tokens, kScoreResultBytes);
  for (size_t i = 0; i < num_scores && error_.empty(); ++i) r.scores.push_back(score_result());
  RETURN_IF_ERROR(finish("step result"));
  return r;
}

}  // namespace

int32_t Microbatch::num_tokens() const {
  int64_t total = 0;
  for (const SequenceSlice& slice : slices) total += static_cast<int64_t>(slice.tokens.size());
  return static_cast<int32_t>(std::min<int64_t>(total, std::numeric_limits<int32_t>::max()));
}

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::none:
      return "none";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::failed:
      return "failed";
  }
  return "unknown";
}

void encode(const Microbatch& microbatch, std::vector<std::byte>& out) {
  Encoder encoder(out);
  encoder.head(microbatch);
  encoder.numbers(microbatch.stages.first, microbatch.stages.last);
  encoder.flag(microbatch.keep_log);
  encoder.flag(microbatch.canary);
  encoder.count(microbatch.released.size());
  for (const SequenceId id : microbatch.released) encoder.numbers(id.value);
  encoder.count(microbatch.copies.size());
  for (const BlockCopy& copy : microbatch.copies) encoder.numbers(copy.from.value, copy.to.value);
  encoder.count(microbatch.descriptors.size());
  for (const SequenceDescriptor& d : microbatch.descriptors) encoder.descriptor(d);
  encoder.count(microbatch.slices.size());
  for (const SequenceSlice& s : microbatch.slices) encoder.slice(s);
}

void encode(const StepResult& result, std::vector<std::byte>& out) {
  Encoder encoder(out);
  encoder.head(result);
  encoder.count(result.tokens.size());
  for (const TokenResult& t : result.tokens) {
    encoder.numbers(t.id.value, t.position, t.token, t.logprob, static_cast<uint8_t>(t.finish),
                    t.text_bytes);
    encoder.pairs(t.top_logprobs);
  }
  encoder.count(result.scores.size());
  for (const ScoreResult& s : result.scores) {
    encoder.numbers(s.id.value, s.position, s.logprob, s.argmax);
    encoder.flag(s.failed);
  }
}

void note_step_time(std::span<std::byte> encoded, Duration spent, StageIndex stage) {
  CHECK_GE(encoded.size(), kHeadBytes);
  const int64_t spent_ns = spent.count();
  int64_t slowest_ns = 0;
  std::memcpy(&slowest_ns, &encoded[kSlowestAt], sizeof slowest_ns);
  if (spent_ns <= slowest_ns) return;
  std::memcpy(&encoded[kSlowestAt], &spent_ns, sizeof spent_ns);
  std::memcpy(&encoded[kSlowestStageAt], &stage.value, sizeof stage.value);
}

Result<Microbatch> decode_microbatch(std::span<const std::byte> bytes,
                                     const MicrobatchLimits& limits) {
  return Decoder(bytes, limits).microbatch();
}

Result<StepResult> decode_step_result(std::span<const std::byte> bytes,
                                      const MicrobatchLimits& limits) {
  return Decoder(bytes, limits).step_result();
}

}  // namespace chainpump::graph
