#include "models/gguf/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <cstring>

#include "tests/models/gguf_builder.h"

namespace chainpump::models {
namespace {

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

// Two tensors: "a" [4] f32 at data offset 0, "b" [32, 2] q4_0 at 32.
GgufBuilder good_file(uint32_t version = 3) {
  GgufBuilder file;
  file.head(version, 2, 3);
  file.text_key("general.architecture", "llama");
  file.key("llama.block_count", kGgufUint32).number(uint32_t{2});
  file.numbers_key<float>("scores", kGgufFloat32, {1.5f, -2.0f});
  file.tensor("a", {4}, kF32, 0).tensor("b", {32, 2}, kQ4_0, 32);
  file.data(32 + 36);
  return file;
}

struct Bad {
  const char* name;
  GgufBuilder file;
  std::vector<const char*> says;  // all of these stand in the message
};

GgufBuilder one_key() { return GgufBuilder().head(3, 0, 1); }
GgufBuilder one_tensor() { return GgufBuilder().head(3, 1, 0); }
constexpr uint64_t kHuge = uint64_t{1} << 60;
const std::string kPadding(200, 'x');  // so that claims of many records are not refused for size

std::vector<Bad> bad_heads() {
  return {
      {"short magic", GgufBuilder().raw("GG"), {"not a GGUF file", "'GG'"}},
      {"other magic",
       GgufBuilder().raw("\x7f"
                         "ELF0000000000000000000000"),
       {"not a GGUF", "ELF"}},
      {"reversed magic", GgufBuilder().raw("FUGG0000000000000000000000"), {"big-endian"}},
      {"big-endian", GgufBuilder().head(0x03000000, 0, 0), {"big-endian"}},
      {"version 1", GgufBuilder().head(1, 0, 0), {"version 1"}},
      {"version 0", GgufBuilder().head(0, 0, 0), {"version 0"}},
      {"version 4", GgufBuilder().head(4, 0, 0), {"version 4"}},
      {"truncated head", GgufBuilder().raw("GGUF").number(uint32_t{3}), {"truncated"}},
      {"2^60 tensors", GgufBuilder().head(3, kHuge, 0), {"tensors", "offset 8"}},
      {"2^60 keys", GgufBuilder().head(3, 0, kHuge), {"keys", "offset 16"}},
      {"all ones", GgufBuilder().head(3, ~uint64_t{0}, ~uint64_t{0}), {"keys"}},
      {"more tensors than bytes", GgufBuilder().head(3, 7, 0).raw(kPadding), {"claims 7 tensors"}},
  };
}

std::vector<Bad> bad_keys() {
  return {
      {"huge key", one_key().number(kHuge).raw(kPadding), {"key 1 of 1", "offset 24"}},
      {"empty key", one_key().string("").raw(kPadding), {"0 bytes", "offset 24"}},
      {"long key", one_key().string(std::string(65536, 'k')).raw(kPadding), {"65536 bytes"}},
      {"no type", one_key().string("key.with.name"), {"'key.with.name'", "truncated"}},
      {"unknown type", one_key().key("k", 13).raw(kPadding), {"'k'", "unknown value type 13"}},
      {"bool 2", one_key().key("k", kGgufBool).number(uint8_t{2}), {"'k'", "bool of value 2"}},
      {"truncated number", one_key().key("kk", kGgufUint64).number(uint8_t{1}), {"'kk'", "trunc"}},
      {"huge string",
       one_key().key("k", kGgufString).number(kHuge),
       {"'k'", "string at offset 37"}},
      {"string past the end",
       one_key().key("k", kGgufString).number(uint64_t{9}).raw("12345678"),
       {"'k'", "claims 9 bytes", "8 left"}},
      {"nested array", one_key().array_key("k", kGgufArray, 1).raw(kPadding), {"array of arrays"}},
      {"array of what", one_key().array_key("k", 99, 1).raw(kPadding), {"'k'", "type 99"}},
      {"huge array", one_key().array_key("k", kGgufUint8, kHuge).raw(kPadding), {"'k'", "claims"}},
      {"array count wraps",
       one_key().array_key("k", kGgufUint64, (kHuge << 1) + 1).raw(kPadding),
       {"'k'", "claims"}},
      {"lying strings",
       one_key().array_key("k", kGgufString, 3).string("a").raw(kPadding),
       {"'k'", "string at offset"}},
      {"bool array",
       one_key().numbers_key<uint8_t>("k", kGgufBool, {0, 1, 2}),
       {"neither 0 nor 1"}},
      {"past int64", one_key().numbers_key<uint64_t>("k", kGgufUint64, {~uint64_t{0}}), {"2^63"}},
      {"twice",
       GgufBuilder().head(3, 0, 2).text_key("k", "a").text_key("k", "b"),
       {"'k'", "twice"}},
      {"alignment 0",
       one_key().key("general.alignment", kGgufUint32).number(uint32_t{0}),
       {"general.alignment"}},
      {"alignment 48",
       one_key().key("general.alignment", kGgufUint32).number(uint32_t{48}),
       {"general.alignment"}},
      {"alignment 2^31",
       one_key().key("general.alignment", kGgufUint32).number(uint32_t{1} << 31),
       {"general.alignment"}},
      {"alignment as text", one_key().text_key("general.alignment", "32"), {"general.alignment"}},
      {"name with escapes", one_key().key("k\x1b[31m\n", 99).raw(kPadding), {"k\\x1b[31m\\x0a"}},
  };
}

std::vector<Bad> bad_tensors() {
  const auto tensor = [](std::initializer_list<uint64_t> dims, uint32_t type, uint64_t offset) {
    return one_tensor().tensor("w", dims, type, offset).data(256);
  };
  return {
      {"long name", one_tensor().string(std::string(65, 'n')).raw(kPadding), {"65 bytes"}},
      {"empty name", one_tensor().string("").raw(kPadding), {"tensor 1 of 1", "0 bytes"}},
      {"huge name", one_tensor().number(kHuge).raw(kPadding), {"tensor 1 of 1", "offset 24"}},
      {"no dims", tensor({}, kF32, 0), {"'w'", "0 dimensions"}},
      {"five dims", tensor({1, 1, 1, 1, 1}, kF32, 0), {"'w'", "5 dimensions"}},
      {"zero dim", tensor({4, 0}, kF32, 0), {"'w'", "dimension 1 is zero"}},
      {"dims overflow", tensor({kHuge, kHuge}, kF32, 0), {"'w'", "overflow"}},
      {"one dim too large", tensor({kHuge * 2}, kF32, 0), {"'w'", "overflow"}},
      {"negative dim", tensor({~uint64_t{0}}, kF32, 0), {"'w'", "overflow"}},
      {"size past the file", tensor({kHuge}, kF32, 0), {"'w'", "needs"}},
      {"known type we lack", tensor({256}, 16, 0), {"'w'", "type 16", "iq2_xxs"}},
      {"removed type", tensor({32}, 4, 0), {"'w'", "type 4", "unknown"}},
      {"type of nobody", tensor({32}, 0xffffffff, 0), {"'w'", "type 4294967295"}},
      {"part of a block", tensor({33}, kQ4_0, 0), {"'w'", "33 elements", "blocks of 32"}},
      {"misaligned", tensor({4}, kF32, 8), {"'w'", "offset 8", "alignment 32"}},
      {"offset past the end", tensor({4}, kF32, 256), {"'w'", "offset 256", "end past"}},
      {"offset wraps", tensor({4}, kF32, ~uint64_t{31}), {"'w'", "end past"}},
      {"end past the end", tensor({60}, kF32, 32), {"'w'", "240 bytes", "end past"}},
      {"no data", one_tensor().tensor("w", {4}, kF32, 0), {"'w'", "end past"}},
      {"truncated record",
       one_tensor().string("w").number(uint32_t{2}).raw(std::string(28, '\1')),
       {"'w'"}},
      {"twice",
       GgufBuilder().head(3, 2, 0).tensor("w", {4}, 0, 0).tensor("w", {4}, 0, 32).data(64),
       {"'w'", "twice"}},
      {"overlap",
       GgufBuilder().head(3, 2, 0).tensor("u", {16}, 0, 0).tensor("v", {4}, 0, 32).data(64),
       {"'u'", "'v'", "overlap"}},
      {"same place",
       GgufBuilder().head(3, 2, 0).tensor("u", {4}, 0, 0).tensor("v", {4}, 0, 0).data(64),
       {"overlap"}},
  };
}

// A file on disk whose pages are not in memory; gone with the object.
class ColdFile {
 public:
  explicit ColdFile(std::span<const std::byte> bytes) {
    // In the working folder: a temporary folder may live in memory, where nothing is ever cold.
    BOOST_TEST_REQUIRE(fd_ >= 0);
    BOOST_TEST_REQUIRE(::write(fd_, bytes.data(), bytes.size()) ==
                       static_cast<ssize_t>(bytes.size()));
    BOOST_TEST_REQUIRE(::fsync(fd_) == 0);
    BOOST_TEST_REQUIRE(::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED) == 0);
  }
  ColdFile(const ColdFile&) = delete;
  ColdFile& operator=(const ColdFile&) = delete;
  ~ColdFile() {
    ::close(fd_);
    ::unlink(path_);
  }
  const char* path() const { return path_; }

 private:
  char path_[32] = ".gguf_test_XXXXXX";
  int fd_ = ::mkstemp(path_);
};

// Bytes of the file that the kernel has in memory.
size_t resident_bytes(const GgufFile& file) {
  const GgufTensor& tensor = file.tensors()[0];
  const std::byte* begin = tensor.bytes.data() - tensor.file_offset;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((file.file_bytes() + page - 1) / page);
  BOOST_TEST_REQUIRE(::mincore(const_cast<std::byte*>(begin), file.file_bytes(), pages.data()) ==
                     0);
  size_t resident = 0;
  for (const unsigned char flags : pages) resident += flags & 1u;
  return resident * page;
}

void check_bad(const std::vector<Bad>& table) {
  for (const Bad& bad : table) {
    const Result<GgufFile> file = GgufFile::parse(bad.file.bytes(), "bad.gguf");
    BOOST_TEST_CONTEXT(bad.name) {
      BOOST_TEST_REQUIRE(!file.ok());
      BOOST_TEST((file.error().code == ErrorCode::bad_file));
      BOOST_TEST(file.error().message.starts_with("bad.gguf: "));
      for (const char* text : bad.says)
        BOOST_TEST(file.error().message.find(text) != std::string::npos,
                   file.error().message << " lacks " << text);
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(gguf_reads_what_is_there) {
  for (const uint32_t version : {2u, 3u}) {
    const GgufBuilder builder = good_file(version);
    const Result<GgufFile> file = GgufFile::parse(builder.bytes(), "good");
    BOOST_TEST_REQUIRE(file.ok());
    BOOST_TEST(file->version() == version);
    BOOST_TEST(file->find_string("general.architecture").value() == "llama");
    BOOST_TEST(file->find_int("llama.block_count").value() == 2);
    BOOST_TEST(file->find_float("llama.block_count").value() == 2.0);
    BOOST_TEST(file->find_floats("scores")->at(1) == -2.0);
    BOOST_TEST(!file->find_string("llama.block_count").has_value());
    BOOST_TEST(!file->find_int("absent").has_value());
    BOOST_TEST(file->find_ints("scores") == nullptr);
    BOOST_TEST_REQUIRE(file->tensors().size() == 2u);
    const GgufTensor* b = file->find_tensor("b");
    BOOST_TEST_REQUIRE(b != nullptr);
    BOOST_TEST((b->type == DType::q4_0));
    BOOST_TEST(b->cols() == 32);
    BOOST_TEST(b->rows() == 2);
    BOOST_TEST(b->bytes.size() == 36u);
    BOOST_TEST((b->bytes[0] == std::byte{32}));
    BOOST_TEST(b->file_offset % 32 == 0u);
    BOOST_TEST(b->bytes.data() == builder.bytes().data() + b->file_offset);
    BOOST_TEST(file->find_tensor("a")->rows() == 1);
    BOOST_TEST(file->find_tensor("c") == nullptr);
  }
}

BOOST_AUTO_TEST_CASE(gguf_reads_every_kind_of_value) {
  GgufBuilder builder;
  builder.head(3, 0, 14);
  builder.key("u8", 0).number(uint8_t{255}).key("i8", 1).number(int8_t{-1});
  builder.key("u16", 2).number(uint16_t{65535}).key("i16", 3).number(int16_t{-2});
  builder.key("u32", 4).number(~uint32_t{0}).key("i32", 5).number(int32_t{-3});
  builder.key("f32", 6).number(0.5f).key("yes", 7).number(uint8_t{1});
  builder.key("u64", 10).number(~uint64_t{0}).key("i64", 11).number(int64_t{-4});
  builder.key("f64", 12).number(0.25).numbers_key<int32_t>("ints", 5, {-5, 6});
  builder.numbers_key<uint8_t>("bools", 7, {1, 0}).strings_key("texts", {"a", "", "c"});
  const Result<GgufFile> file = GgufFile::parse(builder.bytes(), "kinds");
  BOOST_TEST_REQUIRE(file.ok());
  BOOST_TEST(file->find_int("u8").value() == 255);
  BOOST_TEST(file->find_int("i8").value() == -1);
  BOOST_TEST(file->find_int("u16").value() == 65535);
  BOOST_TEST(file->find_int("i16").value() == -2);
  BOOST_TEST(file->find_int("u32").value() == int64_t{0xffffffff});
  BOOST_TEST(file->find_int("i32").value() == -3);
  BOOST_TEST(file->find_float("f32").value() == 0.5);
  BOOST_TEST(file->find_float("i32").value() == -3.0);
  BOOST_TEST(file->find_bool("yes").value());
  BOOST_TEST(!file->find_bool("u8").has_value());
  BOOST_TEST(!file->find_int("u64").has_value());  // does not fit
  BOOST_TEST(file->find_int("i64").value() == -4);
  BOOST_TEST(file->find_float("f64").value() == 0.25);
  BOOST_TEST(file->find_ints("ints")->at(0) == -5);
  BOOST_TEST(file->find_ints("bools")->size() == 2u);
  BOOST_TEST(file->find_strings("texts")->at(2) == "c");
}

BOOST_AUTO_TEST_CASE(gguf_refuses_bad_heads) { check_bad(bad_heads()); }
BOOST_AUTO_TEST_CASE(gguf_refuses_bad_keys) { check_bad(bad_keys()); }
BOOST_AUTO_TEST_CASE(gguf_refuses_bad_tensors) { check_bad(bad_tensors()); }

BOOST_AUTO_TEST_CASE(gguf_refuses_every_truncation) {
  const GgufBuilder builder = good_file();
  for (size_t size = 0; size < builder.bytes().size(); ++size)
    BOOST_TEST(!GgufFile::parse(std::span(builder.bytes()).first(size), "cut").ok(),
               "cut to " << size << " bytes");
}

BOOST_AUTO_TEST_CASE(gguf_limits_what_arrays_expand_to) {
  // 2^24 + 1 bytes that would become as many 8-byte integers.
  GgufBuilder builder;
  constexpr uint64_t kCount = (uint64_t{1} << 24) + 1;
  builder.head(3, 0, 1).array_key("k", kGgufUint8, kCount).raw(std::string(kCount, '\0'));
  const Result<GgufFile> file = GgufFile::parse(builder.bytes(), "wide");
  BOOST_TEST_REQUIRE(!file.ok());
  BOOST_TEST(file.error().message.find("array values in all") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(gguf_fingerprint_tells_files_apart) {
  const auto of = [](const GgufBuilder& builder) {
    return GgufFile::parse(builder.bytes(), "x").value().fingerprint();
  };
  GgufBuilder other = good_file();
  other.data(1);
  GgufBuilder weights = good_file();
  // The one sample of so small a file stands at the middle of the data.
  auto changed = weights.bytes();
  changed[changed.size() - 20] ^= std::byte{1};
  BOOST_TEST(of(good_file()) == of(good_file()));
  BOOST_TEST(of(good_file()) != of(good_file(2)));
  BOOST_TEST(of(good_file()) != of(other));
  BOOST_TEST(of(good_file()) != GgufFile::parse(changed, "x").value().fingerprint());
}

BOOST_AUTO_TEST_CASE(gguf_open_passes_on_the_file_errors) {
  BOOST_TEST((GgufFile::open("/dev/zero").error().code == ErrorCode::bad_file));
  BOOST_TEST((GgufFile::open("/does/not/exist").error().code == ErrorCode::not_found));
  BOOST_TEST((GgufFile::open("CMakeLists.txt").error().code == ErrorCode::bad_file));
}

BOOST_AUTO_TEST_CASE(gguf_reads_the_header_and_what_is_taken) {
  constexpr uint64_t kRows = 2048;
  constexpr uint64_t kTensorBytes = kRows * 1024 * 4;
  constexpr size_t kStride = 65536;  // the parser may overshoot by this much
  GgufBuilder builder;
  builder.head(3, 3, 1);
  builder.strings_key("words", std::vector<std::string_view>(40'000, "some word"));
  for (const char* name : {"before", "mine", "after"})
    builder.tensor(name, {1024, kRows}, kF32,
                   kTensorBytes * (name[0] == 'm'   ? 1
                                   : name[0] == 'a' ? 2
                                                    : 0));
  builder.data(3 * kTensorBytes);
  const ColdFile cold(builder.bytes());
  const Result<GgufFile> file = GgufFile::open(cold.path());
  BOOST_TEST_REQUIRE(file.ok(), (file.ok() ? "" : file.error().message));
  const size_t opened = resident_bytes(*file);
  BOOST_TEST(opened <= file->header_bytes() + kStride);
  const std::span<const std::byte> mine = file->find_tensor("mine")->bytes;
  file->read_ahead(mine);
  unsigned sum = 0;
  for (const std::byte byte : mine) sum += static_cast<unsigned>(byte);
  BOOST_TEST(sum != 0u);
  const size_t taken = resident_bytes(*file) - opened;
  BOOST_TEST(taken <= mine.size() + mine.size() / 50);
  BOOST_TEST(taken >= mine.size() - mine.size() / 50);
}

BOOST_AUTO_TEST_CASE(gguf_release_keeps_neighbours_and_bytes) {
  const char* path = std::getenv("CHAINPUMP_TEST_MODEL");
  BOOST_TEST_REQUIRE(path != nullptr, "CHAINPUMP_TEST_MODEL is not set; run `make setup`");
  const Result<GgufFile> file = GgufFile::open(path);
  BOOST_TEST_REQUIRE(file.ok(), (file.ok() ? "" : file.error().message));
  BOOST_TEST(file->find_string("tokenizer.ggml.pre").value_or("") == "smollm");
  BOOST_TEST(file->tensors().size() == 272u);
  BOOST_TEST(file->file_bytes() > file->header_bytes());
  const GgufTensor* tensor = file->find_tensor("blk.3.ffn_down.weight");
  BOOST_TEST_REQUIRE(tensor != nullptr);
  file->read_ahead(tensor->bytes);
  const std::vector<std::byte> before(tensor->bytes.begin(), tensor->bytes.end());
  file->release_pages(tensor->bytes);
  BOOST_TEST(std::memcmp(before.data(), tensor->bytes.data(), before.size()) == 0);
  file->release_pages({});
  file->release_pages(tensor->bytes.first(1));
}

}  // namespace chainpump::models
