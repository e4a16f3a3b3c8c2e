#include "models/tokenizer/pre_tokenizer.h"

#include "models/tokenizer/utf8.h"

namespace chainpump::models {
namespace {

struct Char {
  CharClass kind = CharClass::other;
  uint32_t value = 0;
  uint32_t bytes = 0;  // 0 past the end
};

Char char_at(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const CodePoint point = decode_utf8(text.data() + at);
  return {char_class(point.value), point.value, point.bytes};
}

bool is_line_end(uint32_t value) { return value == '\r' || value == '\n'; }

// Where the run of characters of class `kind` that begins at `at` ends.
size_t run_end(std::string_view text, size_t at, CharClass kind) {
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 0x80) {
      if (kAsciiClass[byte] != kind) return at;
      ++at;
      continue;
    }
    const CodePoint point = decode_utf8(text.data() + at);
    if (wide_char_class(point.value) != kind) return at;
    at += point.bytes;
  }
  return at;
}

// Bytes of 's 't 're 've 'm 'll 'd at `at`, or 0. Case folding follows Unicode, where U+017F (long
// s) is an s.
size_t contraction_bytes(std::string_view text, size_t at, bool fold_case) {
  if (text[at] != '\'' || at + 1 >= text.size()) return 0;
  const auto lower = [&](size_t i) -> char {
    if (i >= text.size()) return 0;
    const char c = text[i];
    return fold_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = lower(at + 1);
  const char second = lower(at + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (fold_case && text.substr(at + 1, 2) == "\xC5\xBF") return 3;
  return 0;
}

// \s+(?!\S)|\s+ over the run [begin, end): all of it before the end of the text, else all but its
// last character, which belongs to the next word, unless there is no other.
size_t space_end(std::string_view text, size_t begin, size_t end, bool at_text_end) {
  if (at_text_end) return end;
  size_t last = end - 1;
  while ((static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
  return last > begin ? last : end;
}

size_t gpt2_word_end(std::string_view text, size_t begin, bool digits_alone) {
  if (const size_t bytes = contraction_bytes(text, begin, false)) return begin + bytes;
  const Char first = char_at(text, begin);
  if (digits_alone && first.kind == CharClass::number) return begin + first.bytes;
  Char body = first;
  size_t at = begin;
  if (first.value == ' ') {
    at += 1;
    body = char_at(text, at);
    if (digits_alone && body.kind == CharClass::number) return at;
  }
  if (body.bytes != 0 && body.kind != CharClass::space)
    return run_end(text, at + body.bytes, body.kind);
  const size_t end = run_end(text, begin, CharClass::space);
  const Char after = char_at(text, end);
  const bool at_text_end = after.bytes == 0 || (digits_alone && after.kind == CharClass::number);
  return space_end(text, begin, end, at_text_end);
}

// \s*[\r\n]+|\s+(?!\S)|\s+ : through the last line end of the run, if it has one.
size_t llama_space_end(std::string_view text, size_t begin) {
  size_t last_line_end = 0;
  size_t end = begin;
  for (;;) {
    const Char next = char_at(text, end);
    if (next.bytes == 0 || next.kind != CharClass::space) break;
    end += next.bytes;
    if (is_line_end(next.value)) last_line_end = end;
  }
  return last_line_end != 0 ? last_line_end : space_end(text, begin, end, end == text.size());
}

size_t llama_word_end(std::string_view text, size_t begin, int digits_max) {
  if (const size_t bytes = contraction_bytes(text, begin, true)) return begin + bytes;
  const Char first = char_at(text, begin);
  const size_t second = begin + first.bytes;
  if (first.kind == CharClass::letter) return run_end(text, second, CharClass::letter);
  if (first.kind == CharClass::number) {
    size_t end = second;
    for (int digits = 1; digits < digits_max; ++digits) {
      const Char next = char_at(text, end);
      if (next.bytes == 0 || next.kind != CharClass::number) break;
      end += next.bytes;
    }
    return end;
  }
  const Char next = char_at(text, second);
  if (!is_line_end(first.value) && next.bytes != 0 && next.kind == CharClass::letter)
    return run_end(text, second, CharClass::letter);
  const bool spaced = first.value == ' ' && next.bytes != 0 && next.kind == CharClass::other;
  if (spaced || first.kind == CharClass::other) {
    size_t end = run_end(text, spaced ? second : begin, CharClass::other);
    while (end < text.size() && is_line_end(static_cast<unsigned char>(text[end]))) ++end;
    return end;
  }
  return llama_space_end(text, begin);
}

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_from_name(std::string_view name) {
  if (name == "gpt-2" || name == "gpt2") return PreTokenizer::gpt2;
  if (name == "smollm") return PreTokenizer::smollm;
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return PreTokenizer::llama_bpe;
  if (name == "qwen2") return PreTokenizer::qwen2;
  return std::nullopt;
}

size_t word_end(PreTokenizer kind, std::string_view text, size_t begin) {
  switch (kind) {
    case PreTokenizer::gpt2:
      return gpt2_word_end(text, begin, false);
    case PreTokenizer::smollm:
      return gpt2_word_end(text, begin, true);
    case PreTokenizer::llama_bpe:
      return llama_word_end(text, begin, 3);
    case PreTokenizer::qwen2:
      return llama_word_end(text, begin, 1);
  }
  return text.size();
}

}  // namespace chainpump::models
