// A weights file that somebody else wrote: what parses must have every tensor within the file, and
// a tokenizer made from it must encode text without harm.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "models/gguf/gguf.h"
#include "models/tokenizer/tokenizer.h"

namespace {

using namespace chainpump;

void check_tensors(const models::GgufFile& file, std::span<const std::byte> bytes) {
  for (const models::GgufTensor& tensor : file.tensors()) {
    CHECK_LE(tensor.file_offset, bytes.size());
    CHECK_LE(tensor.bytes.size(), bytes.size() - tensor.file_offset);
    CHECK(tensor.bytes.data() == bytes.data() + tensor.file_offset);
    CHECK_EQ(static_cast<int64_t>(tensor.bytes.size()),
             row_bytes(tensor.type, tensor.cols()) * tensor.rows());
    CHECK(file.find_tensor(tensor.name) == &tensor);
  }
}

void check_tokenizer(const models::Tokenizer& tokenizer) {
  constexpr std::string_view kText =
      "ab <|im_end|>  ab\xC3\xA9\xE2\x96\x81\xF0\x9F\x98\x80\r\n12'S";
  for (const auto control : {models::ControlTokens::as_text, models::ControlTokens::parse}) {
    const auto ids = tokenizer.encode(kText, control);
    CHECK(ids.ok());
    models::StreamDecoder decoder(tokenizer);
    for (const TokenId id : *ids) {
      CHECK(id >= 0 && id < tokenizer.vocabulary_size());
      static_cast<void>(decoder.push(id));
    }
    static_cast<void>(decoder.finish());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = models::GgufFile::parse(bytes, "input");
  if (!file.ok()) return 0;
  check_tensors(*file, bytes);
  static_cast<void>(file->fingerprint());
  const auto tokenizer = models::load_tokenizer(*file);
  if (tokenizer.ok()) check_tokenizer(**tokenizer);
  return 0;
}
