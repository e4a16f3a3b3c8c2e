#include "models/tokenizer/tokenizer.h"

#include "models/tokenizer/utf8.h"
#include "models/tokenizer/vocabulary_tokenizer.h"

namespace chainpump::models {

Result<std::vector<TokenId>> VocabularyTokenizer::encode(std::string_view text,
                                                         ControlTokens control) const {
  constexpr size_t kMaxBytes = size_t{1} << 30;  // positions are 32 bits wide
  if (text.size() > kMaxBytes)
    return make_error(ErrorCode::invalid_argument, "text of {} bytes; at most {} are taken at once",
                      text.size(), kMaxBytes);
  const size_t invalid = find_invalid_utf8(text);
  if (invalid != std::string_view::npos)
    return make_error(ErrorCode::invalid_argument, "text is not valid UTF-8 at byte {}", invalid);
  std::vector<TokenId> out;
  out.reserve(text.size() / 4 + 8);
  static const PieceTrie kNone;
  cut_pieces(
      control == ControlTokens::parse ? vocabulary_.controls() : kNone, text,
      [&](std::string_view part) { encode_text(part, out); },
      [&](TokenId token) { out.push_back(token); });
  return out;
}

std::string_view VocabularyTokenizer::token_bytes(TokenId token, bool show_control) const {
  if (!vocabulary_.contains(token)) return {};
  if (vocabulary_.is_control(token) && !show_control) return {};
  return vocabulary_.bytes(token);
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const GgufFile& file) {
  const auto model = file.find_string("tokenizer.ggml.model");
  if (!model)
    return make_error(ErrorCode::bad_file, "{}: key 'tokenizer.ggml.model' is missing",
                      file.path().string());
  if (*model == "gpt2") return load_byte_pair_tokenizer(file);
  if (*model == "llama") return load_sentence_piece_tokenizer(file);
  return make_error(ErrorCode::unimplemented,
                    "{}: tokenizer model '{}' is not supported; 'gpt2' and 'llama' are",
                    file.path().string(), printable(*model));
}

}  // namespace chainpump::models
