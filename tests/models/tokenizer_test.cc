#include "models/tokenizer/tokenizer.h"

#include <utf8proc.h>

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstdlib>
#include <random>
#include <set>

#include "models/tokenizer/merge_queue.h"
#include "models/tokenizer/normalize.h"
#include "models/tokenizer/word_cache.h"
#include "tests/models/gguf_builder.h"

namespace chainpump::models {
namespace {

using Ids = std::vector<TokenId>;
using Types = std::vector<int32_t>;
using Words = std::vector<std::string_view>;

GgufFile parse(const GgufBuilder& builder) {
  Result<GgufFile> file = GgufFile::parse(builder.bytes(), "tiny");
  BOOST_TEST_REQUIRE(file.ok(), (file.ok() ? "" : file.error().message));
  return std::move(file).value();
}

// a b c, their merges, a control token, a user-defined one, and a word that no merge makes.
GgufBuilder bpe_file(std::string_view pre = "gpt-2") {
  GgufBuilder file;
  file.head(3, 0, 7).text_key("tokenizer.ggml.model", "gpt2");
  file.text_key("tokenizer.ggml.pre", pre);
  file.strings_key("tokenizer.ggml.tokens",
                   {"a", "b", "c", "ab", "abc", "<|end|>", "<tool>", "cab", "\xC4\xA0",
                    "\xC4\xA0"
                    "a",
                    "<"});
  file.numbers_key<int32_t>("tokenizer.ggml.token_type", kGgufInt32,
                            {1, 1, 1, 1, 1, 3, 4, 1, 1, 1, 1});
  file.strings_key("tokenizer.ggml.merges", {"a b", "ab c", "\xC4\xA0 a"});
  file.key("tokenizer.ggml.eos_token_id", kGgufUint32).number(uint32_t{5});
  file.key("tokenizer.ggml.add_bos_token", kGgufBool).number(uint8_t{0});
  return file;
}

Ids encode(const Tokenizer& tokenizer, std::string_view text,
           ControlTokens control = ControlTokens::as_text) {
  const Result<Ids> ids = tokenizer.encode(text, control);
  BOOST_TEST_REQUIRE(ids.ok());
  return *ids;
}

void check_ids(const Ids& got, const Ids& expected) {
  BOOST_TEST(got == expected, boost::test_tools::per_element());
}

// The packaged model's tokenizer, and the file that its views point into.
struct RealModel {
  RealModel() {
    const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
    BOOST_TEST_REQUIRE(path != nullptr, "CHAINPUMP_TEST_MODEL is not set; run `make setup`");
    const Result<GgufFile> file = GgufFile::open(path);
    BOOST_TEST_REQUIRE(file.ok(), (file.ok() ? "" : file.error().message));
    tokenizer = load_tokenizer(*file).value();  // outlives the file
  }
  std::unique_ptr<Tokenizer> tokenizer;
};

}  // namespace

BOOST_AUTO_TEST_CASE(tokenizer_merges_by_rank_and_cuts_out_tokens) {
  const auto tokenizer = load_tokenizer(parse(bpe_file())).value();
  check_ids(encode(*tokenizer, ""), {});
  check_ids(encode(*tokenizer, "abc"), {4});
  check_ids(encode(*tokenizer, "abcab a"), {4, 3, 9});
  check_ids(encode(*tokenizer, "cab"), {2, 3});  // merges never make it
  check_ids(encode(*tokenizer, "cab"), {2, 3});  // nor once it was tried
  check_ids(encode(*tokenizer, "a<tool>b"), {0, 6, 1});
  check_ids(encode(*tokenizer, "a!b"), {0, 1});  // the byte is not in the vocabulary
  check_ids(encode(*tokenizer, "a<|end|>b", ControlTokens::parse), {0, 5, 1});
  check_ids(encode(*tokenizer, "a<|end|>", ControlTokens::as_text), {0, 10});
  check_ids(encode(*tokenizer, "<|end|><|end|>", ControlTokens::parse), {5, 5});
}

BOOST_AUTO_TEST_CASE(tokenizer_llama_bpe_takes_whole_words_first) {
  const auto tokenizer = load_tokenizer(parse(bpe_file("llama-bpe"))).value();
  check_ids(encode(*tokenizer, "cab"), {7});
}

BOOST_AUTO_TEST_CASE(tokenizer_knows_its_special_tokens) {
  const auto tokenizer = load_tokenizer(parse(bpe_file())).value();
  BOOST_TEST(tokenizer->vocabulary_size() == 11);
  BOOST_TEST(!tokenizer->bos().has_value());
  BOOST_TEST(tokenizer->eos().value() == 5);
  BOOST_TEST(!tokenizer->adds_bos());
  check_ids(tokenizer->end_tokens(), {5});
  BOOST_TEST(tokenizer->is_control(5));
  BOOST_TEST(!tokenizer->is_control(6));
  BOOST_TEST(!tokenizer->is_control(-1));
  BOOST_TEST(!tokenizer->is_control(11));
  BOOST_TEST(tokenizer->token_bytes(5, false) == "");
  BOOST_TEST(tokenizer->token_bytes(5, true) == "<|end|>");
  BOOST_TEST(tokenizer->token_bytes(9, false) == " a");
  BOOST_TEST(tokenizer->token_bytes(-1, true) == "");
  BOOST_TEST(tokenizer->token_bytes(11, true) == "");
  BOOST_TEST(tokenizer->find("<|end|>").value() == 5);
  BOOST_TEST(tokenizer->find(" a").value() == 9);
  BOOST_TEST(!tokenizer->find("").has_value());
  BOOST_TEST(!tokenizer->find("abcd").has_value());
}

BOOST_AUTO_TEST_CASE(tokenizer_refuses_text_that_is_not_utf8) {
  const auto tokenizer = load_tokenizer(parse(bpe_file())).value();
  const struct {
    std::string_view text;
    size_t offset;
  } table[] = {{"\x80", 0},
               {"a\xFF", 1},
               {"ab\xC3", 2},
               {"\xC0\x80", 0},                  // overlong
               {"\xE0\x9F\xBF", 0},              // overlong
               {"abc\xED\xA0\x80", 3},           // an encoded surrogate
               {"\xED\xBF\xBF", 0},              // another
               {"\xF4\x90\x80\x80", 0},          // past U+10FFFF
               {"\xF0\x9F\x98\x80\xF0\x9F", 4},  // truncated
               {"0123456789abcdef\xE4\xBD", 16}};
  for (const auto& bad : table)
    for (const ControlTokens control : {ControlTokens::as_text, ControlTokens::parse}) {
      const Result<Ids> ids = tokenizer->encode(bad.text, control);
      BOOST_TEST_REQUIRE(!ids.ok());
      BOOST_TEST((ids.error().code == ErrorCode::invalid_argument));
      BOOST_TEST(ids.error().message.ends_with(fmt::format("at byte {}", bad.offset)));
    }
}

BOOST_AUTO_TEST_CASE(tokenizer_load_names_what_is_wrong) {
  const auto bpe = [](const Words& tokens, const Types& types, const Words& merges,
                      uint32_t eos = 0) {
    GgufBuilder file;
    file.head(3, 0, 6).text_key("tokenizer.ggml.model", "gpt2");
    file.text_key("tokenizer.ggml.pre", "gpt-2").strings_key("tokenizer.ggml.tokens", tokens);
    file.numbers_key("tokenizer.ggml.token_type", kGgufInt32, types);
    file.strings_key("tokenizer.ggml.merges", merges);
    file.key("tokenizer.ggml.eos_token_id", kGgufUint32).number(eos);
    return file;
  };
  const auto pieces = [](const std::vector<float>& scores, std::string_view key, bool value) {
    GgufBuilder file;
    file.head(3, 0, 5).text_key("tokenizer.ggml.model", "llama");
    file.strings_key("tokenizer.ggml.tokens", {"<0x4G>", "a"});
    file.numbers_key<int32_t>("tokenizer.ggml.token_type", kGgufInt32, {1, 1});
    file.numbers_key("tokenizer.ggml.scores", kGgufFloat32, scores);
    file.key(key, kGgufBool).number(uint8_t{value});
    return file;
  };
  GgufBuilder bytes;
  bytes.head(3, 0, 3).text_key("tokenizer.ggml.model", "llama");
  bytes.strings_key("tokenizer.ggml.tokens", {"<0x4G>"});
  bytes.numbers_key<int32_t>("tokenizer.ggml.token_type", kGgufInt32, {6});
  GgufBuilder no_merges;
  no_merges.head(3, 0, 3).text_key("tokenizer.ggml.model", "gpt2");
  no_merges.text_key("tokenizer.ggml.pre", "qwen2").strings_key("tokenizer.ggml.tokens", {"a"});
  GgufBuilder no_pre;
  no_pre.head(3, 0, 1).text_key("tokenizer.ggml.model", "gpt2");
  GgufBuilder no_tokens;
  no_tokens.head(3, 0, 1).text_key("tokenizer.ggml.model", "llama");
  const struct {
    GgufBuilder file;
    ErrorCode code;
    std::string_view says;
  } table[] = {
      {GgufBuilder().head(3, 0, 0), ErrorCode::bad_file, "'tokenizer.ggml.model' is missing"},
      {GgufBuilder().head(3, 0, 1).text_key("tokenizer.ggml.model", "bert"),
       ErrorCode::unimplemented, "model 'bert'"},
      {no_pre, ErrorCode::unimplemented, "pre-tokenizer 'none named'"},
      {bpe_file("tekken"), ErrorCode::unimplemented, "pre-tokenizer 'tekken'"},
      {no_tokens, ErrorCode::bad_file, "'tokenizer.ggml.tokens' is missing"},
      {no_merges, ErrorCode::bad_file, "'tokenizer.ggml.merges' is missing"},
      {bpe({"a", "b"}, {1}, {}), ErrorCode::bad_file, "1 entries for 2 tokens"},
      {bpe({"a", "b"}, {1, 7}, {}), ErrorCode::bad_file, "token 1 has the unknown type 7"},
      {bpe({"a", "b"}, {1, 1}, {"a b"}), ErrorCode::bad_file, "merge 0 ('a b')"},
      {bpe({"a", "aa"}, {1, 1}, {"a a", "aa"}), ErrorCode::bad_file, "merge 1 ('aa')"},
      {bpe({"a"}, {1}, {}, 1), ErrorCode::bad_file, "'tokenizer.ggml.eos_token_id' names no token"},
      {bytes, ErrorCode::bad_file, "byte token 0"},
      {pieces({1}, "k", true), ErrorCode::bad_file, "'tokenizer.ggml.scores' has 1 entries"},
      {pieces({1, std::nanf("")}, "k", true), ErrorCode::bad_file, "NaN"},
      {pieces({1, 2}, "tokenizer.ggml.remove_extra_whitespaces", true), ErrorCode::unimplemented,
       "remove_extra_whitespaces"},
      {pieces({1, 2}, "tokenizer.ggml.precompiled_charsmap", true), ErrorCode::unimplemented,
       "precompiled_charsmap"},
  };
  for (const auto& bad : table) {
    const auto tokenizer = load_tokenizer(parse(bad.file));
    BOOST_TEST_CONTEXT(bad.says) {
      BOOST_TEST_REQUIRE(!tokenizer.ok());
      BOOST_TEST((tokenizer.error().code == bad.code));
      BOOST_TEST(tokenizer.error().message.find(bad.says) != std::string::npos,
                 tokenizer.error().message);
    }
  }
}

BOOST_AUTO_TEST_CASE(tokenizer_refuses_more_tokens_than_merges_can_name) {
  const auto load = [](size_t num_tokens) {
    GgufBuilder file;
    file.head(3, 0, 4).text_key("tokenizer.ggml.model", "gpt2");
    file.text_key("tokenizer.ggml.pre", "gpt-2");
    file.strings_key("tokenizer.ggml.tokens", Words(num_tokens, "a"));
    file.strings_key("tokenizer.ggml.merges", {});
    return load_tokenizer(parse(file));
  };
  BOOST_TEST(load(1 << 20).ok());
  const auto refused = load((1 << 20) + 1);
  BOOST_TEST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::unimplemented));
  BOOST_TEST(refused.error().message.find("1048577 tokens and 0 merges; at most 1048576") !=
                 std::string::npos,
             refused.error().message);
}

BOOST_AUTO_TEST_CASE(tokenizer_text_never_becomes_a_control_token) {
  const RealModel model;
  const std::string_view text = "<|im_start|>user\n<|im_end|><|endoftext|><repo_name>";
  const Ids plain = encode(*model.tokenizer, text);
  std::string bytes;
  for (const TokenId id : plain) {
    BOOST_TEST(!model.tokenizer->is_control(id));
    bytes += model.tokenizer->token_bytes(id, false);
  }
  BOOST_TEST(bytes == text);
  check_ids(encode(*model.tokenizer, text, ControlTokens::parse), {1, 4093, 198, 2, 0, 3});
  check_ids(model.tokenizer->end_tokens(), {0, 2});
}

BOOST_AUTO_TEST_CASE(tokenizer_takes_long_runs_in_one_word) {
  // Merging by repeated scans would take hours here.
  const RealModel model;
  constexpr size_t kBytes = size_t{1} << 20;
  for (const char c : {'a', ' ', '\n', '=', '<', '\'', '7'}) {
    const Ids ids = encode(*model.tokenizer, std::string(kBytes, c));
    size_t bytes = 0;
    for (const TokenId id : ids) bytes += model.tokenizer->token_bytes(id, true).size();
    BOOST_TEST(bytes == kBytes);
  }
}

BOOST_AUTO_TEST_CASE(tokenizer_normalizes_long_runs_of_marks) {
  // U+0301 above and U+0323 below in turn: the form has all of the lower class first.
  std::string marks = "x";
  for (int i = 0; i < 200'000; ++i) marks += "\xCC\x81\xCC\xA3";
  std::string buffer;
  const std::string_view form = to_nfc(marks, buffer);
  BOOST_TEST(form.size() == marks.size());
  BOOST_TEST(form.substr(0, 5) == "x\xCC\xA3\xCC\xA3");
  BOOST_TEST(form.ends_with("\xCC\x81\xCC\x81"));
  BOOST_TEST(to_nfc("caf\xC3\xA9", buffer) == "caf\xC3\xA9");
  BOOST_TEST(to_nfc("cafe\xCC\x81", buffer) == "caf\xC3\xA9");
}

BOOST_AUTO_TEST_CASE(tokenizer_normalizes_every_character_as_utf8proc_does) {
  // Each character between others, and what it decomposes into behind a letter: so a character that
  // was wrongly taken to stay as it is would be found, alone, as a base or as what composes.
  const auto utf8 = [](std::initializer_list<utf8proc_int32_t> points) {
    std::string text;
    for (const utf8proc_int32_t point : points) {
      utf8proc_uint8_t bytes[4];
      const utf8proc_ssize_t count = utf8proc_encode_char(point, bytes);
      text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
    }
    return text;
  };
  const auto map = [](const std::string& text, int form) {
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t count =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                     static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | form));
    BOOST_TEST_REQUIRE(count >= 0);
    std::string result(reinterpret_cast<const char*>(mapped), static_cast<size_t>(count));
    std::free(mapped);
    return result;
  };
  int wrong = 0;
  std::string buffer;
  for (utf8proc_int32_t point = 0x80; point < 0x30000; ++point) {
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    const std::string alone = utf8({point});
    const std::string between =
        "e" + alone + utf8({0x301, 0x323}) + "x" + alone + alone + utf8({0x4E00});
    const std::string parts = utf8({0x430}) + map(alone, UTF8PROC_DECOMPOSE);
    for (const std::string& text : {alone, between, parts})
      wrong += to_nfc(text, buffer) != map(text, UTF8PROC_COMPOSE);
  }
  BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(merge_queue_gives_the_lowest_rank_and_leftmost_first) {
  // Against a set, whatever is pushed when: also ranks below those already given.
  for (const int32_t num_ranks : {1, 3, 1000, 1 << 24})
    for (const size_t num_symbols : {size_t{2}, size_t{100}, size_t{40'000}}) {
      MergeQueue queue;
      std::mt19937 random(1);
      for (int round = 0; round < 2; ++round) {  // it keeps its memory between words
        queue.reset(num_symbols, num_ranks);
        std::set<std::pair<int32_t, uint32_t>> expected;
        const auto push = [&](uint32_t left) {
          const auto rank = static_cast<int32_t>(random() % static_cast<uint32_t>(num_ranks));
          if (expected.emplace(rank, left).second) queue.push(rank, left);
        };
        for (uint32_t i = 0; i < 500; ++i) push(i);
        for (uint32_t i = 0; !expected.empty(); ++i) {
          const auto first = queue.pop();
          BOOST_TEST_REQUIRE(first.has_value());
          BOOST_TEST_REQUIRE((std::pair(first->rank, first->left) == *expected.begin()));
          expected.erase(expected.begin());
          if (i < 300) push(1000 + i);
        }
        BOOST_TEST(!queue.pop().has_value());
      }
    }
}

BOOST_AUTO_TEST_CASE(word_cache_gives_the_tokens_of_the_same_bytes_only) {
  // Fewer slots than words, words that share ends, and words of every length.
  WordCache cache(1000);
  std::vector<std::string> words;
  for (const char letter : {'a', 'b', '\0'})
    for (size_t length = 1; length <= 30; ++length)
      for (size_t at = 0; at < length; ++at) {
        words.emplace_back(length, 'x');
        words.back()[at] = letter;
      }
  int encoded = 0;
  const auto encode = [&](std::string_view word, Ids& out) {
    ++encoded;
    for (size_t i = 0; i < word.size() % 13; ++i)
      out.push_back(static_cast<TokenId>(std::hash<std::string_view>()(word) >> 40));
    return word.size() % 3 != 0;
  };
  for (const std::string& word : words)
    for (int again = 0; again < 2; ++again) {
      Ids out = {5};
      cache.append(word, out, encode);
      Ids expected = {5};
      encode(word, expected);
      BOOST_TEST(out == expected, boost::test_tools::per_element());
    }
  // Some were given from memory, though never those that may not serve again.
  BOOST_TEST(encoded < static_cast<int>(words.size()) * 4);
  BOOST_TEST(encoded > static_cast<int>(words.size()) * 3);
}

BOOST_AUTO_TEST_CASE(stream_decoder_holds_back_what_is_not_whole) {
  // One token per byte, spelled in GPT-2's alphabet, for the bytes below.
  GgufBuilder file;
  file.head(3, 0, 4).text_key("tokenizer.ggml.model", "gpt2");
  file.text_key("tokenizer.ggml.pre", "gpt-2");
  file.strings_key("tokenizer.ggml.tokens",
                   {"a", "\xC3\xB0", "\xC5\x81", "\xC4\xBA", "\xC4\xA2", "\xC3\xA3", "\xC3\xBF"});
  file.strings_key("tokenizer.ggml.merges", {});
  const auto tokenizer = load_tokenizer(parse(file)).value();
  enum : TokenId { kA, kF0, k9F, k98, k80, kE3, kFF };
  BOOST_TEST(tokenizer->token_bytes(kF0, false) == "\xF0");
  BOOST_TEST(tokenizer->token_bytes(k9F, false) == "\x9F");
  BOOST_TEST(tokenizer->token_bytes(k98, false) == "\x98");
  BOOST_TEST(tokenizer->token_bytes(k80, false) == "\x80");
  const std::string bad = "\xEF\xBF\xBD";
  const struct {
    Ids ids;
    std::vector<std::string> pushes;
    std::string finish;
  } table[] = {
      {{kA}, {"a"}, ""},
      {{kF0, k9F, k98, k80}, {"", "", "", "\xF0\x9F\x98\x80"}, ""},
      {{kF0, k9F, kA}, {"", "", bad + "a"}, ""},
      {{kF0, k9F}, {"", ""}, bad},
      {{k80, k80}, {bad, bad}, ""},
      {{kFF}, {bad}, ""},
      {{kF0, k80}, {"", bad + bad}, ""},  // F0 80 begins nothing
      {{kE3, k80, kE3, k80, k98}, {"", "", bad, "", "\xE3\x80\x98"}, ""},
      {{99, -1}, {"", ""}, ""},
  };
  for (const auto& row : table) {
    StreamDecoder decoder(*tokenizer);
    for (size_t i = 0; i < row.ids.size(); ++i)
      BOOST_TEST(decoder.push(row.ids[i]) == row.pushes[i]);
    BOOST_TEST(decoder.finish() == row.finish);
    BOOST_TEST(decoder.finish() == "");
  }
}

}  // namespace chainpump::models
