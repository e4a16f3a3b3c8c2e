// A share of a model file that is fetched from other nodes, over the network of this machine: only
// what the stage needs, checked, going on after the death of either side; and what ends it.
#include "actors/weights_fetch.h"

#include <sys/stat.h>

#include <atomic>
#include <boost/test/unit_test.hpp>
#include <filesystem>
#include <future>
#include <map>
#include <thread>

#include "actors/find_model.h"
#include "actors/weights_source.h"
#include "base/mapped_file.h"
#include "models/fingerprint.h"
#include "models/weights/manifest.h"
#include "models/weights/model_files.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/own_mounts.h"
#include "tests/fakes/random.h"
#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"
#include "transport/rpc/channel.h"
#include "transport/rpc/weights_server.h"

namespace chainpump::actors {
namespace {

namespace fs = std::filesystem;
namespace rpc = transport::rpc;
using fakes::why;
using Loaded = std::shared_ptr<const rpc::Credentials>;

/// A node that has the file, and does to what it sends what a test wants.
class Node final : public rpc::WeightsHandler {
 public:
  Node(const fs::path& model, Loaded credentials, const std::string& at = "127.0.0.1:0")
      : mapped_(MappedFile::open(model).value()),
        file_(models::GgufFile::parse(mapped_.bytes(), "m").value()),
        table_(mapped_.bytes(), file_),
        manifest_(models::encode(models::make_manifest(model, {}).value())) {
    UniqueFd listener = rpc::listen_network(at).value();
    address = rpc::own_address(listener);
    served_ = std::async(std::launch::async, [this, fd = listener.release(), credentials] {
      return server_.run(UniqueFd(fd), {credentials, rpc::Role::node, {}});
    });
  }
  ~Node() override { stop(); }
  void stop() {
    if (!served_.valid()) return;
    server_.stop();
    BOOST_TEST(served_.get().ok());
  }

  Result<std::vector<std::byte>> on_manifest(const rpc::ModelIdentity&) override {
    return manifest_;
  }
  std::vector<uint8_t> on_have(const rpc::ModelIdentity&) override {
    return std::vector<uint8_t>(1024, 0xff);
  }
  Result<std::vector<std::byte>> on_read(const rpc::ModelIdentity&, uint32_t index) override {
    if (index >= table_.pieces().size()) return make_error(ErrorCode::not_found, "no such piece");
    const models::WeightPiece& piece = table_.pieces()[index];
    const auto part = mapped_.bytes().subspan(piece.offset, piece.bytes);
    std::vector<std::byte> bytes(part.begin(), part.end());
    if (spoil)
      spoil(bytes, ++num_reads);
    else
      ++num_reads;
    return bytes;
  }

  std::string address;
  std::atomic<int> num_reads = 0;
  std::function<void(std::vector<std::byte>&, int read)> spoil;

 private:
  MappedFile mapped_;
  models::GgufFile file_;
  models::WeightTable table_;
  std::vector<std::byte> manifest_;
  rpc::WeightsServer server_{*this};
  std::future<Status> served_;
};

struct World {
  World() {
    BOOST_REQUIRE(rpc::make_authority(folder.path() / "ca").ok());
    fakes::GgufWriter writer;
    writer.key("general.architecture", "llama");
    fakes::Random random(1);
    for (int layer = 0; layer < 12; ++layer) {
      std::vector<std::byte> bytes(3 << 19);  // a piece and a half
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
      writer.tensor(fmt::format("blk.{}.attn_q.weight", layer), {3 << 17}, DType::f32, bytes);
    }
    writer.write(model.string());
    identity = identity_of(models::make_manifest(model, {}).value());
    terms = {
        .model = identity,
        .stage = stage(2, 6),
        .sources = {},
        .credentials = credentials("c", rpc::Role::node),
        .store = folder.path() / "store",
        .limits = {.silence_max = std::chrono::seconds(5), .rest = std::chrono::milliseconds(50)}};
  }
  Loaded credentials(const std::string& name, rpc::Role role) {
    Loaded& known = issued[name];
    if (!known) {
      const auto made = rpc::issue(folder.path() / "ca", {{role, name}, -3600, 86400});
      BOOST_REQUIRE(made.ok());
      known = rpc::Credentials::load(*made).value();
    }
    return known;
  }
  std::unique_ptr<Node> node(const std::string& name, const std::string& address = "127.0.0.1:0") {
    auto made = std::make_unique<Node>(model, credentials(name, rpc::Role::node), address);
    if (address == "127.0.0.1:0") terms.sources.push_back({.name = name, .address = made->address});
    return made;
  }
  static graph::StagePlan stage(int32_t begin, int32_t end) {
    graph::StagePlan plan;
    plan.layer_begin = begin;
    plan.layer_end = end;
    return plan;
  }
  /// That the share is there, and nothing else of the weights.
  void check(const FetchedWeights& fetched, int32_t begin, int32_t end) const {
    const MappedFile ours = MappedFile::open(fetched.path).value();
    const MappedFile theirs = MappedFile::open(model).value();
    const auto a = models::GgufFile::parse(ours.bytes(), "ours").value();
    const auto b = models::GgufFile::parse(theirs.bytes(), "theirs").value();
    BOOST_TEST(models::model_fingerprint(ours.bytes(), a) == identity.fingerprint);
    for (int32_t layer = 0; layer < 12; ++layer) {
      const auto bytes = [layer](const models::GgufFile& file) {
        return file.tensors()[static_cast<size_t>(layer)].bytes;
      };
      const bool is_equal = std::equal(bytes(a).begin(), bytes(a).end(), bytes(b).begin());
      BOOST_TEST(is_equal == (layer >= begin && layer < end), layer);
    }
    struct stat st {};
    BOOST_TEST(stat(fetched.path.c_str(), &st) == 0);
    BOOST_TEST(st.st_blocks * 512 < (end - begin + 1) * (3 << 19));  // samples cost a page each
  }

  TemporaryFolder folder;
  std::map<std::string, Loaded> issued;
  fs::path model = folder.path() / "m.gguf";
  graph::ModelIdentity identity;
  WeightsFetchTerms terms;
};

BOOST_AUTO_TEST_SUITE(weights_fetch)

BOOST_AUTO_TEST_CASE(only_the_share_comes_once) {
  World world;
  const auto a = world.node("a");
  const auto b = world.node("b");
  int64_t last = 0;
  int64_t total = 0;
  world.terms.progress = [&](int64_t done, int64_t of) {
    BOOST_TEST(done >= last);
    last = done;
    total = of;
  };
  const Result<FetchedWeights> fetched = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(fetched.ok(), why(fetched));
  world.check(*fetched, 2, 6);
  BOOST_TEST(fetched->share_bytes == total);
  BOOST_TEST(last == total);
  BOOST_TEST(a->num_reads + b->num_reads == 1 + 4 * 2);  // the head, and two for each layer
  BOOST_TEST(a->num_reads > 0);
  BOOST_TEST(b->num_reads > 0);
  BOOST_TEST(fetch_weights(world.terms).ok());
  BOOST_TEST(a->num_reads + b->num_reads == 9);
  world.terms.stage = World::stage(4, 8);  // another cut
  last = 0;
  const Result<FetchedWeights> more = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(more.ok(), why(more));
  world.check(*more, 2, 8);
  BOOST_TEST(a->num_reads + b->num_reads == 13);
}

BOOST_AUTO_TEST_CASE(what_comes_damaged_is_asked_for_again) {
  World world;
  const auto a = world.node("a");
  a->spoil = [](std::vector<std::byte>& bytes, int read) {
    if (read == 2) bytes[7] ^= std::byte{1};
    if (read == 5) bytes.pop_back();
  };
  std::string said;
  world.terms.notice = [&](const std::string& what) { said += what + "\n"; };
  const Result<FetchedWeights> fetched = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(fetched.ok(), why(fetched));
  world.check(*fetched, 2, 6);
  BOOST_TEST(a->num_reads == 11);
  BOOST_TEST(said.find("a sent a damaged piece") != std::string::npos, said);
}

BOOST_AUTO_TEST_CASE(who_has_another_file_is_asked_no_more) {
  World world;
  const auto a = world.node("a");
  const auto b = world.node("b");
  a->spoil = [](std::vector<std::byte>& bytes, int) { bytes[0] ^= std::byte{1}; };
  const Result<FetchedWeights> fetched = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(fetched.ok(), why(fetched));
  world.check(*fetched, 2, 6);
  world.terms.stage = World::stage(7, 8);
  world.terms.sources.pop_back();
  const Result<FetchedWeights> refused = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(!refused.ok());
  BOOST_TEST((refused.error().code == ErrorCode::bad_file));
  BOOST_TEST(
      why(refused).find("nobody has them undamaged: a sent a damaged piece") != std::string::npos,
      why(refused));
}

BOOST_AUTO_TEST_CASE(the_death_of_a_source_is_no_end) {
  World world;
  auto a = world.node("a");
  std::promise<void> reached;
  a->spoil = [&](std::vector<std::byte>&, int read) {
    if (read == 4) reached.set_value();
    if (read >= 4) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  // Alone; it comes back where it was.
  auto fetching = std::async(std::launch::async, [&] { return fetch_weights(world.terms); });
  reached.get_future().wait();
  const std::string address = a->address;
  a.reset();
  const auto again = world.node("a", address);
  const Result<FetchedWeights> fetched = fetching.get();
  BOOST_TEST_REQUIRE(fetched.ok(), why(fetched));
  world.check(*fetched, 2, 6);
  // Another one has it, too.
  const auto b = world.node("b");
  world.terms.stage = World::stage(6, 12);
  again->spoil = [&](std::vector<std::byte>&, int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  auto more = std::async(std::launch::async, [&] { return fetch_weights(world.terms); });
  while (b->num_reads == 0) std::this_thread::yield();
  again->stop();
  const Result<FetchedWeights> all = more.get();
  BOOST_TEST_REQUIRE(all.ok(), why(all));
  world.check(*all, 2, 12);
}

BOOST_AUTO_TEST_CASE(nobody_and_silence_end_it) {
  World world;
  world.terms.limits.silence_max = std::chrono::milliseconds(300);
  BOOST_TEST((fetch_weights(world.terms).error().code == ErrorCode::not_found));
  auto a = world.node("a");
  a->stop();
  const Result<FetchedWeights> silent = fetch_weights(world.terms);
  BOOST_TEST((silent.error().code == ErrorCode::deadline_exceeded), why(silent));
  BOOST_TEST(why(silent).find("nobody has said what they are: a ") != std::string::npos,
             why(silent));
  world.terms.store = "";
  BOOST_TEST((fetch_weights(world.terms).error().code == ErrorCode::not_found));
}

// serve's own side, and a node that has fetched and serves what it has.
BOOST_AUTO_TEST_CASE(who_has_fetched_serves_it_on) {
  World world;
  const auto start = [&](const char* name, rpc::Role role, WeightPlaces places) {
    auto source = WeightsSource::start(rpc::listen_network("127.0.0.1:0").value(),
                                       world.credentials(name, role), std::move(places));
    BOOST_REQUIRE(source.ok());
    return *std::move(source);
  };
  auto head = start("head", rpc::Role::coordinator, {});
  head->set_model(world.model, world.identity,
                  models::encode(models::make_manifest(world.model, {}).value()));
  world.terms.sources = {{.name = "head", .is_coordinator = true, .address = head->address()}};
  const Result<FetchedWeights> first = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(first.ok(), why(first));
  world.check(*first, 2, 6);
  head.reset();
  const auto second = start("b", rpc::Role::node, {.store = world.terms.store});
  const auto third = start("d", rpc::Role::node, {.models = world.folder.path()});
  world.terms.store = world.folder.path() / "store2";
  world.terms.stage = World::stage(3, 6);
  world.terms.sources = {{.name = "b", .address = second->address()}};
  const Result<FetchedWeights> from_part = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(from_part.ok(), why(from_part));
  world.check(*from_part, 3, 6);
  world.terms.stage = World::stage(3, 8);
  world.terms.sources.push_back({.name = "d", .address = third->address()});
  const Result<FetchedWeights> from_folder = fetch_weights(world.terms);
  BOOST_TEST_REQUIRE(from_folder.ok(), why(from_folder));
  world.check(*from_folder, 3, 8);
  // Whoever asks for a file that is another gets none of this one.
  ++world.terms.model.content_low;
  world.terms.limits.silence_max = std::chrono::milliseconds(300);
  BOOST_TEST(!fetch_weights(world.terms).ok());
}

BOOST_AUTO_TEST_CASE(a_full_disk_ends_it) {
  const std::string wrong = in_own_mounts([]() -> std::string {
    World world;
    const auto a = world.node("a");
    fs::create_directory(world.terms.store);
    if (mount("none", world.terms.store.c_str(), "tmpfs", 0, "size=4m,mode=700") != 0)
      return "no tmpfs";
    const Result<FetchedWeights> fetched = fetch_weights(world.terms);
    umount2(world.terms.store.c_str(), MNT_DETACH);
    if (fetched.ok()) return "it was fetched";
    if (fetched.error().code != ErrorCode::no_room) return why(fetched);
    return "";
  });
  if (wrong.find("unshare") == 0) return;  // no mounts here
  BOOST_TEST(wrong == "");
}

BOOST_AUTO_TEST_CASE(a_file_of_this_machine_is_found_first) {
  World world;
  const fs::path models = world.folder.path() / "models";
  fs::create_directory(models);
  fs::copy_file(world.model, models / "another-name.gguf");
  ModelSearch search{.terms = {.node = "c", .models = models},
                     .credentials = {},
                     .model = world.identity,
                     .path = "/nowhere/m.gguf",
                     .sources = {}};
  const graph::StagePlan stage = World::stage(0, 3);
  BOOST_TEST(find_model(search, stage, {})->path == (models / "another-name.gguf").string());
  search.path = world.model;
  BOOST_TEST(find_model(search, stage, {})->path == world.model.string());
  search.path = "/nowhere/m.gguf";
  ++search.model.fingerprint;
  const Result<ModelPlace> lacking = find_model(search, stage, {});
  BOOST_TEST(why(lacking).find("node 'c' has no file of the model /nowhere/m.gguf; weights cannot "
                               "be fetched") == 0u,
             why(lacking));
  search.model = {};  // nobody knows what it is
  const Result<ModelPlace> unknown = find_model(search, stage, {});
  BOOST_TEST((unknown.error().code == ErrorCode::not_found));
  search.path = "/nowhere/another-name.gguf";
  BOOST_TEST(find_model(search, stage, {})->path == (models / "another-name.gguf").string());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::actors
