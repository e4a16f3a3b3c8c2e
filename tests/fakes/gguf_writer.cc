#include "tests/fakes/gguf_writer.h"

#include <fstream>
#include <utility>

#include "base/byte_io.h"
#include "base/check.h"

namespace chainpump::fakes {
namespace {

constexpr uint64_t kAlignment = 32;
enum ValueType : uint32_t { kUint32 = 4, kInt32 = 5, kFloat32 = 6, kString = 8, kArray = 9 };

void write_text(ByteWriter& out, std::string_view text) {
  out.write(uint64_t{text.size()});
  out.write_string(text);
}

void pad(std::vector<std::byte>& bytes) { bytes.resize((bytes.size() + 31) / kAlignment * 32); }

}  // namespace

void GgufWriter::key(std::string_view name, uint32_t value) {
  ByteWriter out(keys_);
  write_text(out, name);
  out.write(uint32_t{kUint32});
  out.write(value);
  ++num_keys_;
}

void GgufWriter::key(std::string_view name, float value) {
  ByteWriter out(keys_);
  write_text(out, name);
  out.write(uint32_t{kFloat32});
  out.write(value);
  ++num_keys_;
}

void GgufWriter::key(std::string_view name, std::string_view value) {
  ByteWriter out(keys_);
  write_text(out, name);
  out.write(uint32_t{kString});
  write_text(out, value);
  ++num_keys_;
}

void GgufWriter::key(std::string_view name, const std::vector<std::string>& values) {
  ByteWriter out(keys_);
  write_text(out, name);
  out.write(uint32_t{kArray});
  out.write(uint32_t{kString});
  out.write(uint64_t{values.size()});
  for (const std::string& value : values) write_text(out, value);
  ++num_keys_;
}

void GgufWriter::key(std::string_view name, const std::vector<int32_t>& values) {
  ByteWriter out(keys_);
  write_text(out, name);
  out.write(uint32_t{kArray});
  out.write(uint32_t{kInt32});
  out.write(uint64_t{values.size()});
  for (const int32_t value : values) out.write(value);
  ++num_keys_;
}

void GgufWriter::tensor(std::string_view name, std::vector<int64_t> dims, DType type,
                        std::vector<std::byte> bytes) {
  tensors_.push_back({std::string(name), std::move(dims), type, std::move(bytes)});
}

void GgufWriter::write(const std::string& path) const {
  std::vector<std::byte> bytes;
  ByteWriter out(bytes);
  out.write_string("GGUF");
  out.write(uint32_t{3});
  out.write(uint64_t{tensors_.size()});
  out.write(num_keys_);
  out.write_bytes(keys_);
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    write_text(out, tensor.name);
    out.write(static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) out.write(static_cast<uint64_t>(dim));
    out.write(info(tensor.type).gguf_type);
    out.write(offset);
    offset += (tensor.bytes.size() + kAlignment - 1) / kAlignment * kAlignment;
  }
  for (const Tensor& tensor : tensors_) {
    pad(bytes);
    out.write_bytes(tensor.bytes);
  }
  pad(bytes);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  CHECK_MSG(!file.fail(), "cannot write {}", path);
}

}  // namespace chainpump::fakes
