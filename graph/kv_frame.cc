#include "graph/kv_frame.h"

#include <algorithm>
#include <cstring>

#include "base/byte_io.h"
#include "base/check.h"
#include "base/kv_layout.h"
#include "graph/sequence_store.h"

namespace chainpump::graph {
namespace {

enum class Kind : uint8_t { piece = 1, sequences = 2, end = 3 };

constexpr int64_t kSequenceBytes = 24;  // without its blocks

int64_t blocks_for(int64_t num_positions) {
  return (num_positions + kKvBlockTokens - 1) / kKvBlockTokens;
}

Error refuse(const char* what) {
  return make_error(ErrorCode::invalid_argument, "a KV frame is refused: {}", what);
}

bool serves(const KvFrameLimits& limits, uint8_t lane) {
  return std::find(limits.lanes.begin(), limits.lanes.end(), lane) != limits.lanes.end();
}

Result<KvFrame> decode_piece(ByteReader& reader, uint8_t lane, std::span<const std::byte> payload,
                             const KvFrameLimits& limits) {
  KvPiece piece{.lane = lane, .block = KvBlockId(reader.read<int32_t>())};
  piece.layer = reader.read<int32_t>();
  piece.num_layers = reader.read<int32_t>();
  piece.offset = reader.read<int64_t>();
  piece.bytes = payload;
  if (!reader.ok() || reader.remaining() != 0) return refuse("its length");
  if (!serves(limits, lane)) return refuse("its lane");
  if (piece.block.value < 0 || piece.block.value >= limits.num_blocks) return refuse("its block");
  if (piece.layer < limits.layer_begin || piece.num_layers < 1 ||
      piece.num_layers > limits.layer_end - piece.layer)
    return refuse("its layers");
  const auto size = static_cast<int64_t>(payload.size());
  if (piece.offset < 0 || piece.offset > limits.block_bytes || size == 0)
    return refuse("its offset");
  const bool fits = piece.num_layers == 1
                        ? size <= limits.block_bytes - piece.offset
                        : piece.offset == 0 && size == piece.num_layers * limits.block_bytes;
  if (!fits) return refuse("its size");
  return KvFrame(piece);
}

Result<KvFrame> decode_sequences(ByteReader& reader, std::span<const std::byte> payload,
                                 const KvFrameLimits& limits) {
  const auto count = reader.read<uint32_t>();
  if (!reader.ok() || reader.remaining() != 0) return refuse("its length");
  KvSequences sequences;
  ByteReader body(payload);
  for (uint32_t i = 0; i < count; ++i) {
    StageHoldings::Held held{.id = SequenceId(body.read<uint64_t>())};
    held.identity = body.read<uint64_t>();
    held.index = body.read<uint32_t>();
    held.num_positions = body.read<int32_t>();
    if (!body.ok()) return refuse("fewer sequences than it says");
    if (!serves(limits, SequenceStore::lane_of(held.id))) return refuse("a sequence's lane");
    if (held.num_positions < 0 || held.num_positions > limits.context_tokens)
      return refuse("a sequence's positions");
    for (int64_t left = blocks_for(held.num_positions); left > 0; --left) {
      const KvBlockId block(body.read<int32_t>());
      if (!body.ok()) return refuse("fewer blocks than it says");
      if (block.value < 0 || block.value >= limits.num_blocks) return refuse("a sequence's block");
      held.table.push_back(block);
    }
    sequences.held.push_back(std::move(held));
  }
  if (body.remaining() != 0) return refuse("more than its sequences");
  return KvFrame(std::move(sequences));
}

}  // namespace

void encode(const KvPiece& piece, std::vector<std::byte>& metadata) {
  ByteWriter writer(metadata);
  writer.write(Kind::piece);
  writer.write(piece.lane);
  writer.write(uint16_t{0});
  writer.write(piece.block.value);
  writer.write(piece.layer);
  writer.write(piece.num_layers);
  writer.write(piece.offset);
}

void encode(const KvEnd& end, std::vector<std::byte>& metadata) {
  ByteWriter writer(metadata);
  writer.write(Kind::end);
  writer.write(uint8_t{0});
  writer.write(uint16_t{0});
  writer.write(end.num_sequences);
  writer.write(end.num_pieces);
}

int64_t kv_sequence_bytes(int32_t num_positions) {
  return kSequenceBytes + blocks_for(num_positions) * int64_t{sizeof(int32_t)};
}

KvSequencesWritten encode(std::span<const StageHoldings::Held> held, std::span<std::byte> payload,
                          std::vector<std::byte>& metadata) {
  KvSequencesWritten written;
  std::vector<std::byte> body;
  ByteWriter writer(body);
  for (const StageHoldings::Held& sequence : held) {
    if (written.bytes + kv_sequence_bytes(sequence.num_positions) > std::ssize(payload)) break;
    writer.write(sequence.id.value);
    writer.write(sequence.identity);
    writer.write(sequence.index);
    writer.write(sequence.num_positions);
    for (const KvBlockId block : sequence.table) writer.write(block.value);
    written.bytes = std::ssize(body);
    ++written.count;
  }
  CHECK(held.empty() || written.count > 0);
  if (!body.empty()) std::memcpy(payload.data(), body.data(), body.size());
  ByteWriter head(metadata);
  head.write(Kind::sequences);
  head.write(uint8_t{0});
  head.write(uint16_t{0});
  head.write(static_cast<uint32_t>(written.count));
  return written;
}

Result<KvFrame> decode_kv_frame(std::span<const std::byte> metadata,
                                std::span<const std::byte> payload, const KvFrameLimits& limits) {
  ByteReader reader(metadata);
  const auto kind = reader.read<Kind>();
  const auto lane = reader.read<uint8_t>();
  if (reader.read<uint16_t>() != 0 || (kind != Kind::piece && lane != 0))
    return refuse("its reserved bytes");
  switch (kind) {
    case Kind::piece:
      return decode_piece(reader, lane, payload, limits);
    case Kind::sequences:
      return decode_sequences(reader, payload, limits);
    case Kind::end: {
      KvEnd end{.num_sequences = reader.read<uint32_t>()};
      end.num_pieces = reader.read<uint64_t>();
      if (!reader.ok() || reader.remaining() != 0 || !payload.empty()) return refuse("its length");
      return KvFrame(end);
    }
  }
  return refuse("its kind");
}

}  // namespace chainpump::graph
