// What a weights file is, piece by piece; which pieces a stage needs; and what is kept of them.
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "base/mapped_file.h"
#include "models/fingerprint.h"
#include "models/weights/model_files.h"
#include "models/weights/weight_store.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/own_mounts.h"
#include "tests/fakes/random.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"

namespace chainpump::models {
namespace {

using fakes::why;

struct Parsed {
  explicit Parsed(const std::filesystem::path& path)
      : mapped(MappedFile::open(path).value()),
        file(GgufFile::parse(mapped.bytes(), path.string()).value()),
        table(mapped.bytes(), file) {}
  MappedFile mapped;
  GgufFile file;
  WeightTable table;
};

struct Folder {
  /// Three layers, of which the second has a tensor of two and a half pieces.
  std::filesystem::path model(const char* name = "m.gguf", uint64_t seed = 1,
                              bool has_output = true) {
    fakes::GgufWriter writer;
    fakes::Random random(seed);
    writer.key("general.architecture", "llama");
    const auto tensor = [&](const char* of, int64_t floats) {
      std::vector<std::byte> bytes(static_cast<size_t>(floats) * 4);
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
      writer.tensor(of, {floats}, DType::f32, bytes);
    };
    tensor("token_embd.weight", 3000);
    tensor("blk.0.attn_q.weight", 100);
    tensor("blk.1.attn_q.weight", 5 << 17);  // 2.5 MiB
    tensor("blk.1.ffn_norm.weight", 10);
    tensor("blk.10.attn_q.weight", 50);
    tensor("output_norm.weight", 20);
    if (has_output) tensor("output.weight", 3000);
    tensor("rope_freqs.weight", 8);
    writer.write((folder.path() / name).string());
    return folder.path() / name;
  }
  std::filesystem::path store() const { return folder.path() / "store"; }
  TemporaryFolder folder;
};

graph::StagePlan stage(int32_t begin, int32_t end, bool first, bool last) {
  graph::StagePlan plan;
  plan.layer_begin = begin;
  plan.layer_end = end;
  plan.has_embedding = first;
  plan.has_head = last;
  return plan;
}

std::string names(const GgufFile& file, const graph::StagePlan& of) {
  std::string all;
  for (const GgufTensor* tensor : stage_tensors(file, of))
    all += (all.empty() ? "" : " ") + std::string(tensor->name);
  return all;
}

BOOST_AUTO_TEST_SUITE(weights)

BOOST_AUTO_TEST_CASE(a_stage_reads_its_layers_and_its_ends) {
  Folder folder;
  const Parsed whole(folder.model());
  BOOST_TEST(names(whole.file, stage(0, 1, true, false)) ==
             "token_embd.weight blk.0.attn_q.weight rope_freqs.weight");
  BOOST_TEST(names(whole.file, stage(1, 2, false, false)) ==
             "blk.1.attn_q.weight blk.1.ffn_norm.weight rope_freqs.weight");
  BOOST_TEST(names(whole.file, stage(2, 11, false, true)) ==
             "blk.10.attn_q.weight output_norm.weight output.weight rope_freqs.weight");
  const Parsed tied(folder.model("tied.gguf", 1, false));
  BOOST_TEST(names(tied.file, stage(2, 11, false, true)) ==
             "token_embd.weight blk.10.attn_q.weight output_norm.weight rope_freqs.weight");
}

BOOST_AUTO_TEST_CASE(pieces_cover_the_head_and_each_tensor) {
  Folder folder;
  const Parsed of(folder.model());
  const std::vector<WeightPiece>& pieces = of.table.pieces();
  BOOST_TEST_REQUIRE(pieces.size() == 1u + 8 + 2);
  BOOST_TEST(pieces[0].offset == 0u);
  BOOST_TEST(pieces[0].bytes == of.table.head_bytes());
  const GgufTensor& large = of.file.tensors()[2];
  BOOST_TEST((pieces[3] == WeightPiece{large.file_offset, kWeightPieceBytes}));
  BOOST_TEST(
      (pieces[5] == WeightPiece{large.file_offset + 2 * kWeightPieceBytes, kWeightPieceBytes / 2}));
  const auto tensors = stage_tensors(of.file, stage(1, 2, false, false));
  BOOST_TEST((of.table.share(tensors) == std::vector<uint32_t>{0, 3, 4, 5, 6, 10}));
  BOOST_TEST((head_pieces((3 << 20) + 1).size() == 4u));
}

BOOST_AUTO_TEST_CASE(a_manifest_tells_contents_apart) {
  Folder folder;
  const std::filesystem::path path = folder.model();
  const Result<Manifest> made = make_manifest(path, {});
  BOOST_TEST_REQUIRE(made.ok(), why(made));
  const Parsed of(path);
  BOOST_TEST(made->hashes.size() == of.table.pieces().size());
  BOOST_TEST(made->fingerprint == model_fingerprint(of.mapped.bytes(), of.file));
  BOOST_TEST((identity_of(*make_manifest(folder.model("copy.gguf"), {})) == identity_of(*made)));
  // A byte that no sample sees.
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(of.file.tensors()[2].file_offset + 5))
      .put('?');
  const Result<Manifest> other = make_manifest(path, {});
  BOOST_TEST(other->fingerprint == made->fingerprint);
  BOOST_TEST(other->hashes[3].low != made->hashes[3].low);
  BOOST_TEST((identity_of(*other) != identity_of(*made)));
}

BOOST_AUTO_TEST_CASE(a_manifest_that_lies_is_refused) {
  Folder folder;
  const Manifest manifest = *make_manifest(folder.model(), {});
  const std::vector<std::byte> good = encode(manifest);
  BOOST_TEST((*decode_manifest(good) == manifest));
  for (size_t cut = 0; cut < good.size(); cut += 7)
    BOOST_TEST(!decode_manifest(std::span(good).first(cut)).ok());
  const auto refused = [&](auto&& change) {
    Manifest lying = manifest;
    change(lying);
    const Result<Manifest> read = decode_manifest(encode(lying));
    return !read.ok() && read.error().code == ErrorCode::bad_file;
  };
  BOOST_TEST(refused([](Manifest& m) { m.head_bytes = 0; }));
  BOOST_TEST(refused([](Manifest& m) { m.head_bytes = m.bytes + 1; }));
  BOOST_TEST(refused([](Manifest& m) { m.bytes = m.head_bytes = uint64_t{1} << 62; }));
  BOOST_TEST(refused([](Manifest& m) { m.hashes.clear(); }));
  std::vector<std::byte> damaged = good;
  damaged[0] ^= std::byte{1};
  BOOST_TEST(!decode_manifest(damaged).ok());
}

BOOST_AUTO_TEST_CASE(a_whole_file_is_hashed_once) {
  Folder folder;
  const std::filesystem::path path = folder.model();
  int reads = 0;
  const auto manifest = [&](int64_t settle_ns) {
    bool has_read = false;
    const Result<Manifest> made = manifest_of(
        path, folder.store(), [&](int64_t, int64_t) { has_read = true; }, settle_ns);
    BOOST_TEST(made.ok(), why(made));
    reads += has_read;
    return *made;
  };
  const Manifest first = manifest(0);
  BOOST_TEST((manifest(0) == first));
  BOOST_TEST(reads == 1);
  manifest(int64_t{3'600'000'000'000});  // it may change again without its times moving
  BOOST_TEST(reads == 2);
  folder.model("m.gguf", 2);
  BOOST_TEST((manifest(0) != first));
  BOOST_TEST(reads == 3);
  for (const auto& entry : std::filesystem::directory_iterator(folder.store()))
    std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(60).put('?');
  manifest(0);
  BOOST_TEST(reads == 4);
}

BOOST_AUTO_TEST_CASE(a_model_is_found_by_what_it_is) {
  Folder folder;
  const std::filesystem::path path = folder.model();
  const graph::ModelIdentity identity = identity_of(*make_manifest(path, {}));
  const std::filesystem::path other = folder.model("other.gguf", 2);
  BOOST_TEST(is_model(path, identity));
  BOOST_TEST(!is_model(other, identity));
  BOOST_TEST(!is_model("/nowhere", identity));
  BOOST_TEST((find_model(identity, {other, path}, {}) == path));
  BOOST_TEST((find_model(identity, {other}, folder.folder.path()) == path));
  BOOST_TEST(!find_model(identity, {other}, "/nowhere").has_value());
}

BOOST_AUTO_TEST_CASE(what_is_marked_was_synced) {
  Folder folder;
  const Parsed of(folder.model());
  const Manifest manifest = *make_manifest(of.mapped.path(), {});
  const graph::ModelIdentity identity = identity_of(manifest);
  const auto piece_bytes = [&](uint32_t i) {
    return of.mapped.bytes().subspan(of.table.pieces()[i].offset, of.table.pieces()[i].bytes);
  };
  BOOST_TEST(!WeightStore::find(folder.store(), identity).ok());
  {
    Result<WeightStore> store = WeightStore::open({.folder = folder.store()}, identity);
    BOOST_TEST_REQUIRE(store.ok(), why(store));
    BOOST_TEST(store->write(4, of.table.pieces()[4], piece_bytes(4)).ok());
    BOOST_TEST(!store->has(4));
    BOOST_TEST(store->sync().ok());
    BOOST_TEST(store->has(4));
    BOOST_TEST(store->write(5, of.table.pieces()[5], piece_bytes(5)).ok());  // and it dies
  }
  Result<WeightStore> store = WeightStore::open({.folder = folder.store()}, identity);
  BOOST_TEST_REQUIRE(store.ok(), why(store));
  BOOST_TEST(store->has(4));
  BOOST_TEST(!store->has(5));
  BOOST_TEST(!store->has(4'000'000'000u));
  std::vector<std::byte> read(of.table.pieces()[4].bytes);
  BOOST_TEST(store->read(of.table.pieces()[4], read).ok());
  BOOST_TEST((hash_of(read) == manifest.hashes[4]));
  BOOST_TEST(!store->manifest().has_value());
  BOOST_TEST(store->keep_manifest(encode(manifest)).ok());
  BOOST_TEST(store->manifest().has_value());
  BOOST_TEST(!store->has_head());
  BOOST_TEST(store->write(0, of.table.pieces()[0], piece_bytes(0)).ok());
  BOOST_TEST(store->sync().ok());
  BOOST_TEST(store->has_head());
  struct stat st {};
  BOOST_TEST(stat(store->path().c_str(), &st) == 0);
  BOOST_TEST(static_cast<uint64_t>(st.st_size) == manifest.bytes);
  BOOST_TEST(st.st_blocks * 512 < (2 << 20));  // with holes
  BOOST_TEST((st.st_mode & 077) == 0u);
  // Data that has gone takes its marks along.
  std::filesystem::remove(store->path());
  BOOST_TEST(!WeightStore::open({.folder = folder.store()}, identity)->has(4));
}

BOOST_AUTO_TEST_CASE(models_used_least_recently_go_when_there_is_no_room) {
  Folder folder;
  const WeightStoreOptions options{.folder = folder.store(), .limit_bytes = 1 << 20};
  const std::vector<std::byte> bytes(400 << 10, std::byte{1});
  const auto identity = [](uint64_t number) {
    return graph::ModelIdentity{.bytes = 1 << 20, .content_low = number};
  };
  const auto keep = [&](uint64_t number) -> Status {
    ASSIGN_OR_RETURN(WeightStore store, WeightStore::open(options, identity(number)));
    RETURN_IF_ERROR(store.reserve(bytes.size()));
    RETURN_IF_ERROR(store.write(0, {0, bytes.size()}, bytes));
    return store.sync();
  };
  BOOST_TEST(keep(1).ok());
  BOOST_TEST(keep(2).ok());
  BOOST_TEST(keep(3).ok());
  BOOST_TEST(!WeightStore::find(folder.store(), identity(1)).ok());
  BOOST_TEST(WeightStore::find(folder.store(), identity(2))->has(0));
  Result<WeightStore> large = WeightStore::open(options, identity(4));
  const Status refused = large->reserve(2 << 20);
  BOOST_TEST((refused.error().code == ErrorCode::no_room));
  BOOST_TEST(WeightStore::find(folder.store(), identity(3)).ok());
}

BOOST_AUTO_TEST_CASE(a_full_disk_says_so) {
  const std::string wrong = in_own_mounts([]() -> std::string {
    TemporaryFolder folder;
    if (mount("none", folder.path().c_str(), "tmpfs", 0, "size=512k") != 0) return "no tmpfs";
    const auto store = folder.path() / "store";
    Result<WeightStore> opened =
        WeightStore::open({.folder = store}, {.bytes = 4 << 20, .content_low = 1});
    std::string said;
    if (!opened.ok()) {
      said = why(opened);
    } else {
      const std::vector<std::byte> bytes(1 << 20, std::byte{1});
      const Status reserved = opened->reserve(bytes.size());
      const Status written = opened->write(0, {0, bytes.size()}, bytes);
      if (reserved.ok() || reserved.error().code != ErrorCode::no_room) said = "reserved";
      if (written.ok() || written.error().code != ErrorCode::no_room) said += "written";
    }
    umount2(folder.path().c_str(), MNT_DETACH);
    return said;
  });
  if (wrong.find("unshare") == 0) return;  // no mounts here
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::models
