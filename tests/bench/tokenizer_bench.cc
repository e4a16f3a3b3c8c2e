// Speed of the tokenizer alone: loading, encoding and decoding, on one thread, without a cache that
// outlives a call. Usage: tokenizer_bench MODEL.gguf ROUNDS TEXT_FILE... Prints one JSON object:
// medians over the rounds, load_ms and for each text [encode, decode] in MB/s; docs say how figures
// are taken.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/clock.h"
#include "models/tokenizer/tokenizer.h"

namespace chainpump {
namespace {

template <typename Work>
double median_seconds(int rounds, const Work& work) {
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const TimePoint start = steady_clock().now();
    work();
    seconds.push_back(to_seconds(steady_clock().now() - start));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

Status bench(const char* path, int rounds, const std::vector<std::string>& texts) {
  ASSIGN_OR_RETURN(const models::GgufFile file, models::GgufFile::open(path));
  ASSIGN_OR_RETURN(const auto tokenizer, models::load_tokenizer(file));
  const double open_s = median_seconds(rounds, [&] { (void)models::GgufFile::open(path); });
  const double load_s = median_seconds(rounds, [&] { (void)models::load_tokenizer(file); });
  fmt::print("{{\"open_ms\": {:.2f}, \"load_ms\": {:.2f}, \"texts\": [", 1e3 * open_s,
             1e3 * load_s);
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                     tokenizer->encode(texts[i], models::ControlTokens::as_text));
    const double encode_s = median_seconds(
        rounds, [&] { (void)tokenizer->encode(texts[i], models::ControlTokens::as_text); });
    size_t decoded = 0;
    const double decode_s = median_seconds(rounds, [&] {
      models::StreamDecoder decoder(*tokenizer);
      for (const TokenId id : ids) decoded += decoder.push(id).size();
      decoded += decoder.finish().size();
    });
    const double mb = 1e-6 * static_cast<double>(texts[i].size());
    const double decoded_mb = 1e-6 * static_cast<double>(decoded) / rounds;
    fmt::print("{}[{:.2f}, {:.2f}, {}]", i == 0 ? "" : ", ", mb / encode_s, decoded_mb / decode_s,
               ids.size());
  }
  fmt::print("]}}\n");
  return ok_status();
}

}  // namespace
}  // namespace chainpump

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: {} MODEL.gguf ROUNDS TEXT_FILE...\n", argv[0]);
    return 2;
  }
  std::vector<std::string> texts;
  for (int i = 3; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    texts.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  const chainpump::Status status =
      chainpump::bench(argv[1], std::max(1, std::atoi(argv[2])), texts);
  if (status.ok()) return 0;
  fmt::print(stderr, "{}\n", status.error().message);
  return 1;
}
