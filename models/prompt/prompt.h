// From a rendered chat template to token ids. Exists because neither side alone knows enough: the
// template knows which bytes a user wrote, the tokenizer knows which bytes are control tokens.
// Pure functions; any thread. Does not render (models/chat) and does not count or cut tokens.
//
// BOS: nothing is added here. A chat template writes its BOS token itself where the model wants
// one (`{{ bos_token }}`), so a rendered prompt must not get a second one from
// Tokenizer::adds_bos(), which speaks of raw prompts only.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "models/chat/chat_template.h"
#include "models/gguf/gguf.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump::models {

/// Ids of the rendered prompt: the same as those of the whole text with its control tokens parsed,
/// as long as no message spells one. A control token is one only where the template wrote each of
/// its bytes; what comes from a message is text, whatever it spells, and is merged with the
/// template's text next to it. invalid_argument if a text is not valid UTF-8.
/// Costs one pass over the vocabulary, a fraction of a millisecond, and that of encoding.
Result<std::vector<TokenId>> encode_prompt(const Tokenizer& tokenizer,
                                           std::span<const PromptPiece> pieces);

/// The source of the model's chat template (key tokenizer.chat_template). not_found if the file has
/// none; bad_file if it is not text.
Result<std::string> chat_template_source(const GgufFile& file);

}  // namespace chainpump::models
