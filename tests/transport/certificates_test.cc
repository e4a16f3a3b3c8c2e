// What the operator's certificates are: made, issued, and refused by name when they are not what
// they should be.
#include <sys/stat.h>

#include <boost/test/unit_test.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/fakes/temporary_folder.h"
#include "tests/fakes/why.h"
#include "transport/rpc/certificates.h"

namespace chainpump::transport::rpc {
namespace {

using fakes::why;

namespace fs = std::filesystem;

struct Cluster {
  Cluster() { BOOST_REQUIRE(make_authority(folder.path()).ok()); }
  fs::path issued(const std::string& name, Role role = Role::node, int64_t ends_s = 86400) {
    Result<fs::path> made = issue(folder.path(), {{role, name}, -3600, ends_s});
    BOOST_REQUIRE(made.ok());
    return *made;
  }
  TemporaryFolder folder;
};

BOOST_AUTO_TEST_SUITE(certificates)

BOOST_AUTO_TEST_CASE(what_was_issued_is_read_back) {
  Cluster cluster;
  const Result<Certified> node = read_certified(cluster.issued("gpu-1"));
  BOOST_REQUIRE(node.ok());
  BOOST_TEST(to_string(node->identity) == "node/gpu-1");
  const Result<Certified> head = read_certified(cluster.issued("head", Role::coordinator));
  BOOST_REQUIRE(head.ok());
  BOOST_TEST(to_string(head->identity) == "coordinator/head");
  BOOST_TEST(head->authority == node->authority);
  for (const char* secret : {"ca-key.pem", "gpu-1/key.pem"})
    BOOST_TEST(((fs::status(cluster.folder.path() / secret).permissions() &
                 (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none));
}

BOOST_AUTO_TEST_CASE(nothing_is_replaced) {
  Cluster cluster;
  BOOST_TEST(why(make_authority(cluster.folder.path())).find("there already") != std::string::npos);
  cluster.issued("a");
  BOOST_TEST(why(issue(cluster.folder.path(), {{Role::node, "a"}})).find("of that name") !=
             std::string::npos);
}

BOOST_AUTO_TEST_CASE(names_are_checked) {
  Cluster cluster;
  for (const char* name : {"", "a/b", "..", "a b", "0123456789012345678901234567890123456789x"})
    BOOST_TEST(why(issue(cluster.folder.path(), {{Role::node, name}})).find("no name") !=
               std::string::npos);
  for (const char* text : {"node", "node/", "nodes/a", "node/a/b", "/a", "Node/a", ""})
    BOOST_TEST(!identity_from(text).has_value());
}

// Each way in which the three files of a folder can be wrong, and the word that says so.
BOOST_AUTO_TEST_CASE(a_folder_that_is_wrong_is_refused_by_name) {
  Cluster cluster, foreign;
  const fs::path good = cluster.issued("a");
  const fs::path other = cluster.issued("b");
  const fs::path strange = foreign.issued("a");
  struct Case {
    const char* file;
    std::function<void(const fs::path&)> damage;
    const char* word;
  };
  const auto copy = [](const fs::path& from) {
    return [from](const fs::path& to) {
      fs::copy_file(from, to, fs::copy_options::overwrite_existing);
    };
  };
  const auto text = [](std::string words) {
    return [words](const fs::path& to) { std::ofstream(to) << words; };
  };
  const std::vector<Case> cases = {
      {"key.pem", copy(other / "key.pem"), "not of the key beside it"},
      {"ca.pem", copy(strange / "ca.pem"), "not issued by the authority beside it"},
      {"certificate.pem", copy(cluster.folder.path() / "ca.pem"), "is not ROLE/NAME"},
      {"certificate.pem", text("nothing"), "holds no certificate"},
      {"certificate.pem", text(std::string(100000, 'x')), "not a file in PEM"},
      {"key.pem", text("nothing"), "holds no key"},
      {"key.pem", [](const fs::path& to) { ::chmod(to.c_str(), 0640); }, "others may read"},
      {"key.pem", [](const fs::path& to) { fs::remove(to); }, "No such file"},
  };
  for (const Case& c : cases) {
    TemporaryFolder folder;
    fs::copy(good, folder.path(), fs::copy_options::recursive);
    BOOST_TEST(why(read_certified(folder.path())) == "ok");
    c.damage(folder.path() / c.file);
    const std::string said = why(read_certified(folder.path()));
    BOOST_TEST(said.find(c.word) != std::string::npos, said << " lacks " << c.word);
  }
  const std::string expired = why(read_certified(cluster.issued("d", Role::node, -60)));
  BOOST_TEST(expired.find("node/d has expired") != std::string::npos, expired);
  const Result<fs::path> early = issue(cluster.folder.path(), {{Role::node, "e"}, 3600, 7200});
  BOOST_TEST(why(read_certified(*early)).find("not valid yet") != std::string::npos);
  fs::copy_file(foreign.folder.path() / "ca-key.pem", cluster.folder.path() / "ca-key.pem",
                fs::copy_options::overwrite_existing);
  BOOST_TEST(why(issue(cluster.folder.path(), {{Role::node, "f"}})).find("not the key of ca.pem") !=
             std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump::transport::rpc
