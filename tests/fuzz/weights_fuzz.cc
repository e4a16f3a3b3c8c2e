// What other nodes send of weights: manifests (models/weights/manifest.h), and pieces in any order,
// right, wrong, or none, from any of them (graph/weight_fetch.h).
#include <optional>
#include <set>

#include "base/check.h"
#include "graph/weight_fetch.h"
#include "models/weights/manifest.h"

namespace {

using namespace chainpump;
using graph::WeightFetch;

void fuzz_manifest(std::span<const std::byte> bytes) {
  const Result<models::Manifest> manifest = models::decode_manifest(bytes);
  if (!manifest.ok()) return;
  const std::vector<std::byte> again = encode(*manifest);
  CHECK(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()));
  CHECK(models::head_pieces(manifest->head_bytes).size() <= manifest->hashes.size());
}

/// Each byte is what comes next, for one of those who were asked.
void fuzz_fetch(std::span<const std::byte> bytes) {
  constexpr uint32_t kPieces = 21;
  std::vector<uint32_t> wanted;
  for (uint32_t i = 0; i < kPieces; i += 2) wanted.push_back(i);
  TimePoint now;
  WeightFetch fetch(wanted, kPieces, {"a", "b", "c"}, {}, now);
  std::vector<WeightFetch::Ask> open;
  std::set<uint32_t> there;
  for (const std::byte byte : bytes) {
    for (const WeightFetch::Ask& ask : fetch.next(now)) open.push_back(ask);
    CHECK(open.size() <= 3 * 4);
    std::set<uint32_t> asked;
    for (const WeightFetch::Ask& ask : open)
      if (ask.piece) CHECK(asked.insert(*ask.piece).second && !there.contains(*ask.piece));
    const auto fate = static_cast<uint8_t>(byte);
    now = now + std::chrono::milliseconds(fate);
    if (open.empty()) continue;
    const size_t which = fate / 8 % open.size();
    const WeightFetch::Ask ask = open[which];
    open.erase(open.begin() + static_cast<ptrdiff_t>(which));
    if (!ask.piece && fate % 8 == 0) fetch.on_lost(ask.source, "gone", now);
    if (!ask.piece && fate % 8 != 0) fetch.on_has(ask.source, std::vector<uint8_t>(fate % 8, fate));
    if (!ask.piece) continue;
    const auto came = static_cast<WeightFetch::Came>(fate % 3);
    if (came == WeightFetch::Came::right) there.insert(*ask.piece);
    fetch.on_piece(ask, came, "so it was", now);
  }
  CHECK(fetch.done() == (there.size() == wanted.size()));
  if (fetch.done()) CHECK(!fetch.failure(now));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  if (data[0] % 2 == 0)
    fuzz_manifest(bytes);
  else
    fuzz_fetch(bytes);
  return 0;
}
