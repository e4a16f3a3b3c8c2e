#include "models/gguf/header.h"

#include <algorithm>

#include "base/byte_io.h"

namespace chainpump::models {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint32_t kUint32Value = 4;

void write_text(ByteWriter& out, std::string_view text) {
  out.write(uint64_t{text.size()});
  out.write_string(text);
}

}  // namespace

GgufHeader::GgufHeader(const GgufFile& file) : alignment_(file.alignment()) {
  for (const GgufRecord& record : file.records())
    keys_.push_back({record.key, {record.bytes.begin(), record.bytes.end()}});
}

void GgufHeader::set_key(std::string_view name, uint32_t value) {
  std::vector<std::byte> bytes;
  ByteWriter out(bytes);
  write_text(out, name);
  out.write(kUint32Value);
  out.write(value);
  const auto it =
      std::find_if(keys_.begin(), keys_.end(), [name](const Key& key) { return key.name == name; });
  if (it == keys_.end())
    keys_.push_back({name, std::move(bytes)});
  else
    it->bytes = std::move(bytes);
}

void GgufHeader::add_tensor(std::string_view name, const std::vector<int64_t>& dims, DType type) {
  ByteWriter out(tensors_);
  write_text(out, name);
  out.write(static_cast<uint32_t>(dims.size()));
  int64_t rows = 1;
  for (const int64_t dim : dims) out.write(static_cast<uint64_t>(dim));
  for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
  out.write(info(type).gguf_type);
  out.write(data_bytes_);
  const auto bytes = static_cast<uint64_t>(rows * row_bytes(type, dims[0]));
  data_bytes_ += bytes + padding(bytes);
  ++num_tensors_;
}

std::vector<std::byte> GgufHeader::bytes() const {
  std::vector<std::byte> bytes;
  ByteWriter out(bytes);
  out.write_string("GGUF");
  out.write(kVersion);
  out.write(num_tensors_);
  out.write(uint64_t{keys_.size()});
  for (const Key& key : keys_) out.write_bytes(key.bytes);
  out.write_bytes(tensors_);
  bytes.resize(bytes.size() + padding(bytes.size()));
  return bytes;
}

uint64_t GgufHeader::padding(uint64_t data_bytes) const { return -data_bytes & (alignment_ - 1); }

uint64_t GgufHeader::file_bytes() const { return bytes().size() + data_bytes_; }

}  // namespace chainpump::models
