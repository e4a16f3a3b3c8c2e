#include "models/gguf/parse.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "models/gguf/pages.h"

namespace chainpump::models {
namespace {

// What a well-meant file stays far below; the format sets no limits but for the lengths of names.
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxKeys = uint64_t{1} << 16;
constexpr uint64_t kMaxTensors = uint64_t{1} << 20;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;  // of all keys together
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;

// What a record takes at most beside its strings and arrays.
constexpr uint64_t kNearby = 256;

// The smallest possible records: a name of one byte, and a value of one byte or one dimension.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

// Bytes of one value as it stands in the file; the least that a string takes; 0 for what is none.
uint64_t value_bytes(uint32_t type) {
  constexpr std::array<uint8_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return type < kBytes.size() ? kBytes[type] : 0;
}

// Names of GGML types that this program does not read, so that the message can say which it is.
std::string_view foreign_type_name(uint32_t type) {
  struct Entry {
    uint32_t type;
    std::string_view name;
  };
  constexpr Entry kEntries[] = {{9, "q8_1"},     {10, "q2_k"},   {11, "q3_k"},    {15, "q8_k"},
                                {16, "iq2_xxs"}, {17, "iq2_xs"}, {18, "iq3_xxs"}, {19, "iq1_s"},
                                {20, "iq4_nl"},  {21, "iq3_s"},  {22, "iq2_s"},   {23, "iq4_xs"},
                                {24, "i8"},      {25, "i16"},    {26, "i32"},     {27, "i64"},
                                {28, "f64"},     {29, "iq1_m"},  {34, "tq1_0"},   {35, "tq2_0"},
                                {39, "mxfp4"}};
  for (const Entry& entry : kEntries)
    if (entry.type == type) return entry.name;
  return "unknown";
}

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

template <typename T>
void read_each(ByteReader& reader, uint64_t count, auto& out) {
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.push_back(reader.read<T>());
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string out;
  for (const char c : text.substr(0, kShown)) {
    if (c >= 0x20 && c < 0x7f)
      out += c;
    else
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  if (text.size() > kShown) out += "...";
  return out;
}

Result<GgufFile> GgufParser::run() {
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
  RETURN_IF_ERROR(read_head(num_tensors, num_keys));
  for (uint64_t i = 0; i < num_keys; ++i) {
    place_ = fmt::format("key {} of {}", i + 1, num_keys);
    RETURN_IF_ERROR(read_key_value());
  }
  RETURN_IF_ERROR(read_alignment());
  file_.tensors_.reserve(num_tensors);
  offsets_.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    place_ = fmt::format("tensor {} of {}", i + 1, num_tensors);
    RETURN_IF_ERROR(read_tensor(i));
  }
  file_.header_bytes_ = reader_.offset();
  file_.file_bytes_ = bytes_.size();
  file_.bytes_ = bytes_;
  RETURN_IF_ERROR(place_tensors());
  RETURN_IF_ERROR(check_overlaps());
  return std::move(file_);
}

// Asks for the next `more` bytes at least, in strides that cost few calls and overshoot little.
void GgufParser::read_ahead(uint64_t more) {
  constexpr uint64_t kStride = uint64_t{64} << 10;
  const uint64_t end = std::min<uint64_t>(reader_.offset() + more, bytes_.size());
  if (!mapped_ || end <= ahead_) return;
  const uint64_t wanted = std::min<uint64_t>(round_up(end, kStride), bytes_.size());
  advise_pages(bytes_.subspan(ahead_, wanted - ahead_), MADV_WILLNEED);
  ahead_ = wanted;
}

Status GgufParser::read_head(uint64_t& num_tensors, uint64_t& num_keys) {
  read_ahead(4);
  const std::string_view magic = reader_.take_string(4);
  if (magic == "FUGG") return bad("a big-endian GGUF file: convert it to little-endian");
  if (magic != "GGUF")
    return bad("not a GGUF file: it begins with '{}'",
               printable(std::string_view(reinterpret_cast<const char*>(bytes_.data()),
                                          std::min<size_t>(4, bytes_.size()))));
  file_.version_ = reader_.read<uint32_t>();
  if (reader_.ok() && file_.version_ != 0 && (file_.version_ & 0xffff) == 0)
    return bad("a big-endian GGUF file (version field 0x{:08x}): convert it to little-endian",
               file_.version_);
  if (reader_.ok() && file_.version_ != 2 && file_.version_ != 3)
    return bad("GGUF version {}: this program reads 2 and 3", file_.version_);
  num_tensors = reader_.read<uint64_t>();
  num_keys = reader_.read<uint64_t>();
  if (!reader_.ok()) return bad("truncated within the first 24 bytes");
  const uint64_t rest = reader_.remaining();
  if (num_keys > kMaxKeys || num_keys > rest / kMinKeyBytes)
    return bad("claims {} keys (offset 16), more than its {} bytes can hold or {} allowed",
               num_keys, bytes_.size(), kMaxKeys);
  if (num_tensors > kMaxTensors || num_tensors > rest / kMinTensorBytes)
    return bad("claims {} tensors (offset 8), more than its {} bytes can hold or {} allowed",
               num_tensors, bytes_.size(), kMaxTensors);
  return ok_status();
}

Result<std::string_view> GgufParser::read_string() {
  const size_t at = reader_.offset();
  read_ahead(kNearby);
  const auto length = reader_.read<uint64_t>();
  if (!reader_.ok() || length > reader_.remaining())
    return bad("{}: string at offset {} claims {} bytes, the file has {} left", place_, at, length,
               reader_.remaining());
  return reader_.take_string(length);
}

Status GgufParser::read_key_value() {
  const size_t at = reader_.offset();
  ASSIGN_OR_RETURN(const std::string_view key, read_string());
  if (key.empty() || key.size() > kMaxKeyBytes)
    return bad("{}: name at offset {} has {} bytes, allowed are 1 to {}", place_, at, key.size(),
               kMaxKeyBytes);
  place_ = fmt::format("key '{}' (offset {})", printable(key), at);
  const auto type = reader_.read<uint32_t>();
  if (!reader_.ok()) return bad("{}: truncated", place_);
  ASSIGN_OR_RETURN(GgufValue value, type == kArray ? read_array() : read_value(type));
  if (!file_.metadata_.emplace(key, std::move(value)).second)
    return bad("{}: stands there twice", place_);
  file_.records_.push_back({key, bytes_.subspan(at, reader_.offset() - at)});
  return ok_status();
}

Result<GgufValue> GgufParser::read_value(uint32_t type) {
  GgufValue value;
  switch (type) {
    case kUint8:
      value = uint64_t{reader_.read<uint8_t>()};
      break;
    case kInt8:
      value = int64_t{reader_.read<int8_t>()};
      break;
    case kUint16:
      value = uint64_t{reader_.read<uint16_t>()};
      break;
    case kInt16:
      value = int64_t{reader_.read<int16_t>()};
      break;
    case kUint32:
      value = uint64_t{reader_.read<uint32_t>()};
      break;
    case kInt32:
      value = int64_t{reader_.read<int32_t>()};
      break;
    case kUint64:
      value = reader_.read<uint64_t>();
      break;
    case kInt64:
      value = reader_.read<int64_t>();
      break;
    case kFloat32:
      value = double{reader_.read<float>()};
      break;
    case kFloat64:
      value = reader_.read<double>();
      break;
    case kBool: {
      const auto byte = reader_.read<uint8_t>();
      if (byte > 1) return bad("{}: a bool of value {}", place_, byte);
      value = byte == 1;
      break;
    }
    case kString: {
      ASSIGN_OR_RETURN(value, read_string());
      break;
    }
    default:
      return bad("{}: unknown value type {}", place_, type);
  }
  if (!reader_.ok()) return bad("{}: truncated at offset {}", place_, reader_.offset());
  return value;
}

Result<GgufValue> GgufParser::read_array() {
  const size_t at = reader_.offset();
  const auto type = reader_.read<uint32_t>();
  const auto count = reader_.read<uint64_t>();
  if (!reader_.ok()) return bad("{}: truncated", place_);
  if (type == kArray) return bad("{}: an array of arrays, which is not supported", place_);
  const uint64_t each = value_bytes(type);
  if (each == 0) return bad("{}: an array of unknown value type {}", place_, type);
  if (count > reader_.remaining() / each)
    return bad("{}: array at offset {} claims {} values, the file has {} bytes left", place_, at,
               count, reader_.remaining());
  read_ahead(count * each);
  array_elements_ += count;
  if (array_elements_ > kMaxArrayElements)
    return bad("{}: more than {} array values in all", place_, kMaxArrayElements);
  if (type == kString) {
    std::vector<std::string_view> strings;
    strings.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const std::string_view text, read_string());
      strings.push_back(text);
    }
    return GgufValue(std::move(strings));
  }
  if (type == kFloat32 || type == kFloat64) {
    std::vector<double> floats;
    type == kFloat32 ? read_each<float>(reader_, count, floats)
                     : read_each<double>(reader_, count, floats);
    return GgufValue(std::move(floats));
  }
  std::vector<int64_t> ints;
  switch (type) {
    case kUint8:
    case kBool:
      read_each<uint8_t>(reader_, count, ints);
      break;
    case kInt8:
      read_each<int8_t>(reader_, count, ints);
      break;
    case kUint16:
      read_each<uint16_t>(reader_, count, ints);
      break;
    case kInt16:
      read_each<int16_t>(reader_, count, ints);
      break;
    case kUint32:
      read_each<uint32_t>(reader_, count, ints);
      break;
    case kInt32:
      read_each<int32_t>(reader_, count, ints);
      break;
    default:
      read_each<int64_t>(reader_, count, ints);
      break;  // kUint64, kInt64
  }
  if (type == kUint64 && std::any_of(ints.begin(), ints.end(), [](int64_t v) { return v < 0; }))
    return bad("{}: a value past 2^63", place_);
  if (type == kBool && std::any_of(ints.begin(), ints.end(), [](int64_t v) { return v > 1; }))
    return bad("{}: a bool that is neither 0 nor 1", place_);
  return GgufValue(std::move(ints));
}

Status GgufParser::read_alignment() {
  const auto it = file_.metadata_.find("general.alignment");
  if (it == file_.metadata_.end()) return ok_status();
  const auto* value = std::get_if<uint64_t>(&it->second);
  if (value == nullptr || *value < 8 || *value > kMaxAlignment || (*value & (*value - 1)) != 0)
    return bad("key 'general.alignment': must be a power of two from 8 to {}", kMaxAlignment);
  file_.alignment_ = *value;
  return ok_status();
}

Status GgufParser::read_tensor(uint64_t index) {
  const size_t at = reader_.offset();
  GgufTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, read_string());
  if (tensor.name.empty() || tensor.name.size() > kMaxTensorNameBytes)
    return bad("{}: name at offset {} has {} bytes, allowed are 1 to {}", place_, at,
               tensor.name.size(), kMaxTensorNameBytes);
  place_ = fmt::format("tensor '{}' (offset {})", printable(tensor.name), at);
  uint64_t elements = 0;
  RETURN_IF_ERROR(read_dims(tensor, elements));
  const auto type = reader_.read<uint32_t>();
  const auto offset = reader_.read<uint64_t>();
  if (!reader_.ok()) return bad("{}: truncated", place_);
  const std::optional<DType> known = dtype_from_gguf(type);
  if (!known)
    return bad("{}: type {} ({}) is not supported", place_, type, foreign_type_name(type));
  tensor.type = *known;
  const DTypeInfo& dtype = info(*known);
  if (tensor.cols() % dtype.block_elements != 0)
    return bad("{}: rows of {} elements do not fill {}'s blocks of {}", place_, tensor.cols(),
               dtype.name, dtype.block_elements);
  // No overflow: a block has no more bytes than four times its elements, which are < 2^60.
  const uint64_t size = elements / static_cast<uint64_t>(dtype.block_elements) *
                        static_cast<uint64_t>(dtype.block_bytes);
  if (size > bytes_.size())
    return bad("{}: needs {} bytes, the file has {}", place_, size, bytes_.size());
  if (offset % file_.alignment_ != 0)
    return bad("{}: data offset {} is not a multiple of the alignment {}", place_, offset,
               file_.alignment_);
  // Only the size is known yet; place_tensors sets the address.
  tensor.bytes = bytes_.first(static_cast<size_t>(size));
  offsets_.push_back(offset);
  if (!file_.tensor_index_.emplace(tensor.name, index).second)
    return bad("{}: stands there twice", place_);
  file_.tensors_.push_back(std::move(tensor));
  return ok_status();
}

Status GgufParser::read_dims(GgufTensor& tensor, uint64_t& elements) {
  const auto num_dims = reader_.read<uint32_t>();
  if (!reader_.ok()) return bad("{}: truncated", place_);
  if (num_dims == 0 || num_dims > kMaxDims)
    return bad("{}: {} dimensions, allowed are 1 to {}", place_, num_dims, kMaxDims);
  constexpr uint64_t kMaxElements = uint64_t{1} << 60;
  elements = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    const auto dim = reader_.read<uint64_t>();
    if (!reader_.ok()) return bad("{}: truncated", place_);
    if (dim == 0) return bad("{}: dimension {} is zero", place_, i);
    if (dim > kMaxElements / elements)
      return bad("{}: dimension {} of {} makes the element count overflow", place_, i, dim);
    elements *= dim;
    tensor.dims.push_back(static_cast<int64_t>(dim));
  }
  return ok_status();
}

Status GgufParser::place_tensors() {
  for (size_t i = 0; i < file_.tensors_.size(); ++i) RETURN_IF_ERROR(place_tensor(i));
  return ok_status();
}

Status GgufParser::place_tensor(size_t index) {
  GgufTensor& tensor = file_.tensors_[index];
  const uint64_t data_begin = round_up(file_.header_bytes_, file_.alignment_);
  const uint64_t data_bytes = bytes_.size() - std::min<uint64_t>(data_begin, bytes_.size());
  if (offsets_[index] > data_bytes || tensor.bytes.size() > data_bytes - offsets_[index])
    return bad("tensor '{}': {} bytes at data offset {} (file offset {}) end past the file's {}",
               printable(tensor.name), tensor.bytes.size(), offsets_[index],
               data_begin + std::min(offsets_[index], bytes_.size()), bytes_.size());
  tensor.file_offset = data_begin + offsets_[index];
  tensor.bytes = bytes_.subspan(tensor.file_offset, tensor.bytes.size());
  return ok_status();
}

Status GgufParser::check_overlaps() {
  std::vector<const GgufTensor*> order;
  order.reserve(file_.tensors_.size());
  for (const GgufTensor& tensor : file_.tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return a->file_offset < b->file_offset;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = *order[i - 1];
    if (before.file_offset + before.bytes.size() > order[i]->file_offset)
      return bad("tensor '{}': its data at file offset {} overlaps tensor '{}'",
                 printable(order[i]->name), order[i]->file_offset, printable(before.name));
  }
  return ok_status();
}

}  // namespace chainpump::models
