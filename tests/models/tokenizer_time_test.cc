// The worst text costs little more than any other: 1 MiB of each hostile kind within a second of
// the thread's own CPU time, under every pre-tokenizer and for SentencePiece. The bound is far
// above what a slow machine takes and far below what anything quadratic would.
#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <ctime>
#include <random>

#include "models/tokenizer/tokenizer.h"
#include "tests/models/gguf_builder.h"

namespace chainpump::models {
namespace {

constexpr size_t kTextBytes = size_t{1} << 20;
constexpr double kSecondsMax = 1.0;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::string repeated(std::string_view unit) {
  std::string text;
  while (text.size() + unit.size() <= kTextBytes) text += unit;
  return text;
}

// Characters drawn from `alphabet`, one word of them.
std::string drawn(const std::vector<std::string>& alphabet) {
  std::mt19937 random(7);
  std::string text;
  while (text.size() + 4 <= kTextBytes) text += alphabet[random() % alphabet.size()];
  return text;
}

std::vector<std::string> han_characters() {
  std::vector<std::string> all;
  for (uint32_t point = 0x4E00; point < 0x9FFF; ++point)
    all.push_back({static_cast<char>(0xE0 | point >> 12),
                   static_cast<char>(0x80 | (point >> 6 & 0x3F)),
                   static_cast<char>(0x80 | (point & 0x3F))});
  return all;
}

std::string fibonacci_word() {
  std::string before = "a";
  std::string text = "ab";
  while (text.size() < kTextBytes) before = std::exchange(text, text + before);
  return text.substr(0, kTextBytes);
}

void check_times(const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string_view, std::string>> texts;
  for (const std::string_view unit : {"a",
                                      " ",
                                      "\n",
                                      "\t",
                                      "7",
                                      "=",
                                      "'",
                                      "ab",
                                      "aab",
                                      " \n",
                                      "\xC2\xA0",
                                      "\xE3\x80\x80",
                                      "\xE7\x9A\x84",
                                      "\xF0\x9F\x98\x80",
                                      "x\xCC\x81\xCC\xA3",
                                      "\xCC\x81\xCC\xA3",
                                      "<|im_start|",
                                      "<|im_start|>",
                                      "'ll've're",
                                      "abcdefghijklmnopqrstuvwxyz"})
    texts.emplace_back(unit, repeated(unit));
  texts.emplace_back("drawn letters", drawn({"e", "t", "a", "o", "i", "n", "s", "h", "r"}));
  texts.emplace_back("drawn marks", drawn({"!", "#", "-", "=", "/", "*", "(", ")", ".", "<"}));
  texts.emplace_back("drawn Han", drawn(han_characters()));
  texts.emplace_back("Fibonacci word", fibonacci_word());
  for (const auto& [name, text] : texts) {
    const double start = cpu_seconds();
    const auto ids = tokenizer.encode(text, ControlTokens::parse);  // does all that as_text does
    const double seconds = cpu_seconds() - start;
    BOOST_TEST_CONTEXT(name) {
      BOOST_TEST(ids.ok());
      BOOST_TEST(seconds < kSecondsMax);
    }
  }
}

std::unique_ptr<Tokenizer> load(const GgufBuilder& builder) {
  const Result<GgufFile> file = GgufFile::parse(builder.bytes(), "built");
  BOOST_TEST_REQUIRE(file.ok(), (file.ok() ? "" : file.error().message));
  return load_tokenizer(*file).value();
}

}  // namespace

BOOST_AUTO_TEST_CASE(tokenizer_time_is_bounded_for_each_pre_tokenizer) {
  const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
  BOOST_TEST_REQUIRE(path != nullptr, "CHAINPUMP_TEST_MODEL is not set; run `make setup`");
  const GgufFile model = GgufFile::open(path).value();
  std::vector<int32_t> types;
  for (const int64_t type : *model.find_ints("tokenizer.ggml.token_type"))
    types.push_back(static_cast<int32_t>(type));
  for (const std::string_view pre : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    GgufBuilder file;
    file.head(3, 0, 5).text_key("tokenizer.ggml.model", "gpt2").text_key("tokenizer.ggml.pre", pre);
    file.strings_key("tokenizer.ggml.tokens", *model.find_strings("tokenizer.ggml.tokens"));
    file.numbers_key("tokenizer.ggml.token_type", kGgufInt32, types);
    file.strings_key("tokenizer.ggml.merges", *model.find_strings("tokenizer.ggml.merges"));
    BOOST_TEST_CONTEXT(pre) check_times(*load(file));
  }
}

BOOST_AUTO_TEST_CASE(tokenizer_time_is_bounded_for_sentence_piece) {
  // Every text of up to five of these letters is a piece; with `inside`, spaces merge like letters,
  // so that a text is one word. Scores are all equal or all different.
  for (const bool inside : {false, true})
    for (const int scores_count : {1, 1 << 20}) {
      std::vector<std::string> pieces = {"<unk>"};
      for (size_t begin = 0, length = 0; length < 5; ++length) {
        const size_t end = pieces.size();
        for (size_t i = length == 0 ? 0 : begin; i < end; ++i)
          for (const char* letter : {"a", "b", "e", "t", "o", "\xE2\x96\x81"})
            if (inside || length == 0 || *letter > 0 || pieces[i].ends_with(letter))
              pieces.push_back((length == 0 ? "" : pieces[i]) + letter);
        begin = end;
      }
      std::vector<float> scores;
      for (size_t i = 0; i < pieces.size(); ++i)
        scores.push_back(
            -static_cast<float>(i * 7919 % pieces.size() % static_cast<size_t>(scores_count)));
      std::vector<int32_t> types(pieces.size(), 1);
      types[0] = 2;
      GgufBuilder file;
      file.head(3, 0, 4).text_key("tokenizer.ggml.model", "llama");
      file.strings_key("tokenizer.ggml.tokens", {pieces.begin(), pieces.end()});
      file.numbers_key("tokenizer.ggml.token_type", kGgufInt32, types);
      file.numbers_key("tokenizer.ggml.scores", kGgufFloat32, scores);
      BOOST_TEST_CONTEXT(inside << " " << scores_count) check_times(*load(file));
    }
}

}  // namespace chainpump::models
