// Cuts text into the words within which byte-level BPE merges: hand-written scanners that accept
// exactly what the models' regular expressions do, in linear time. Pure; any thread.
//
//   gpt2       's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm     each \p{N} alone; what lies between as gpt2, as if it were all the text
//   llama_bpe  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//                | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2      as llama_bpe with \p{N} in place of \p{N}{1,3}
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace chainpump::models {

enum class PreTokenizer : uint8_t { gpt2, smollm, llama_bpe, qwen2 };

/// By the name in a GGUF file's tokenizer.ggml.pre.
std::optional<PreTokenizer> pre_tokenizer_from_name(std::string_view name);

/// Where the word that begins at `begin` ends. text: valid UTF-8; begin < text.size(), at a word's
/// start. The result is greater than `begin`.
size_t word_end(PreTokenizer kind, std::string_view text, size_t begin);

}  // namespace chainpump::models
