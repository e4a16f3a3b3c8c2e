#include "models/panel_cache/panel_header.h"

#include "base/byte_io.h"

namespace chainpump::models {
namespace {

constexpr std::string_view kMagic = "CHPANEL1";
constexpr size_t kSourceBytes = 40;

void write(ByteWriter& writer, const ContentHash& hash) {
  writer.write(hash.low);
  writer.write(hash.high);
}

ContentHash read_hash(ByteReader& reader) {
  ContentHash hash;
  hash.low = reader.read<uint64_t>();
  hash.high = reader.read<uint64_t>();
  return hash;
}

}  // namespace

std::vector<std::byte> encode_source(const FileIdentity& source) {
  std::vector<std::byte> out;
  ByteWriter writer(out);
  writer.write(source.device);
  writer.write(source.inode);
  writer.write(source.bytes);
  writer.write(source.modified_ns);
  writer.write(source.changed_ns);
  writer.write(hash_of(out).low);
  return out;
}

std::vector<std::byte> encode(const PanelHeader& header) {
  std::vector<std::byte> out;
  ByteWriter writer(out);
  writer.write_string(kMagic);
  write(writer, header.key);
  write(writer, header.raw);
  write(writer, header.data);
  writer.write(header.data_bytes);
  writer.write(hash_of(out).low);
  CHECK_EQ(out.size(), kPanelSourceOffset);
  writer.write_bytes(encode_source(header.source));
  out.resize(kPanelHeaderBytes);
  return out;
}

Result<PanelHeader> decode_panel_header(std::span<const std::byte> bytes) {
  const auto refuse = [](const char* what) { return make_error(ErrorCode::bad_file, "{}", what); };
  if (bytes.size() < kPanelHeaderBytes) return refuse("is too short");
  ByteReader reader(bytes);
  if (reader.take_string(kMagic.size()) != kMagic) return refuse("is no file of panels");
  PanelHeader header;
  header.key = read_hash(reader);
  header.raw = read_hash(reader);
  header.data = read_hash(reader);
  header.data_bytes = reader.read<uint64_t>();
  if (reader.read<uint64_t>() != hash_of(bytes.first(kPanelSourceOffset - sizeof(uint64_t))).low)
    return refuse("has a damaged head");
  FileIdentity source;
  source.device = reader.read<uint64_t>();
  source.inode = reader.read<uint64_t>();
  source.bytes = reader.read<uint64_t>();
  source.modified_ns = reader.read<int64_t>();
  source.changed_ns = reader.read<int64_t>();
  if (reader.read<uint64_t>() == hash_of(bytes.subspan(kPanelSourceOffset, kSourceBytes)).low)
    header.source = source;
  return header;
}

}  // namespace chainpump::models
