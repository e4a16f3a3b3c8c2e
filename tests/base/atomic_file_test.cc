#include "base/atomic_file.h"

#include <sys/stat.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <string>

#include "tests/fakes/temporary_folder.h"

namespace chainpump {
namespace {

using std::filesystem::path;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string read(const path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const path& file, std::string_view text) { std::ofstream(file) << text; }

}  // namespace

BOOST_AUTO_TEST_CASE(an_atomic_file_appears_whole) {
  const TemporaryFolder folder;
  const path name = folder.path() / "out";
  {
    Result<AtomicFile> file = AtomicFile::create(name, 1 << 20, false);
    BOOST_TEST_REQUIRE(file.ok());
    BOOST_TEST_REQUIRE(file->write(bytes_of("ab")).ok());
    BOOST_TEST_REQUIRE(file->write(bytes_of("cd")).ok());
    BOOST_TEST(!exists(name));
    BOOST_TEST_REQUIRE(file->commit().ok());
    BOOST_TEST(read(name) == "abcd");
  }
  BOOST_TEST(read(name) == "abcd");
  BOOST_TEST(!exists(partial_path(name)));
}

BOOST_AUTO_TEST_CASE(an_atomic_file_given_up_leaves_nothing) {
  const TemporaryFolder folder;
  const path name = folder.path() / "out";
  put(name, "old");
  {
    Result<AtomicFile> file = AtomicFile::create(name, 4, true);
    BOOST_TEST_REQUIRE(file.ok());
    const AtomicFile moved = std::move(*file);
    BOOST_TEST(exists(partial_path(name)));
  }
  BOOST_TEST(read(name) == "old");
  BOOST_TEST(!exists(partial_path(name)));
}

BOOST_AUTO_TEST_CASE(an_atomic_file_replaces_only_when_told) {
  const TemporaryFolder folder;
  const path name = folder.path() / "out";
  Result<AtomicFile> early = AtomicFile::create(name, 0, false);
  BOOST_TEST_REQUIRE(early.ok());
  put(name, "theirs");  // it came up meanwhile
  const Status late = early->commit();
  BOOST_TEST_REQUIRE(!late.ok());
  BOOST_TEST((late.error().code == ErrorCode::invalid_argument));
  BOOST_TEST(read(name) == "theirs");
  const Result<AtomicFile> second = AtomicFile::create(name, 0, false);
  BOOST_TEST_REQUIRE(!second.ok());
  BOOST_TEST((second.error().code == ErrorCode::invalid_argument));
}

BOOST_AUTO_TEST_CASE(an_atomic_file_has_one_writer) {
  const TemporaryFolder folder;
  const path name = folder.path() / "out";
  const auto code = [&] {
    const Result<AtomicFile> file = AtomicFile::create(name, 1, true);
    return file.ok() ? std::optional<ErrorCode>() : file.error().code;
  };
  {
    const Result<AtomicFile> first = AtomicFile::create(name, 1, true);
    BOOST_TEST_REQUIRE(first.ok());
    BOOST_TEST((code() == ErrorCode::overloaded));
    BOOST_TEST(exists(partial_path(name)));  // the first one's
  }
  put(partial_path(name), "of a killed writer");
  BOOST_TEST(!code().has_value());
}

BOOST_AUTO_TEST_CASE(an_atomic_file_is_refused) {
  const TemporaryFolder folder;
  const auto code = [&](const path& name, int64_t bytes) {
    const Result<AtomicFile> file = AtomicFile::create(name, bytes, true);
    return file.ok() ? std::optional<ErrorCode>() : file.error().code;
  };
  BOOST_TEST((code(folder.path() / "none" / "out", 1) == ErrorCode::not_found));
  BOOST_TEST((code(folder.path(), 1) == ErrorCode::invalid_argument));
  BOOST_TEST(
      (code(folder.path() / "out", std::numeric_limits<int64_t>::max()) == ErrorCode::no_room));
  create_symlink(folder.path() / "elsewhere", partial_path(folder.path() / "out"));
  BOOST_TEST((code(folder.path() / "out", 1) == ErrorCode::not_found));
  BOOST_TEST(!exists(folder.path() / "elsewhere"));
  remove(partial_path(folder.path() / "out"));
  BOOST_TEST_REQUIRE(::mkfifo(partial_path(folder.path() / "out").c_str(), 0600) == 0);
  BOOST_TEST(code(folder.path() / "out", 1).has_value());
}

BOOST_AUTO_TEST_CASE(same_files_are_known_by_any_name) {
  const TemporaryFolder folder;
  const path name = folder.path() / "a";
  put(name, "a");
  put(folder.path() / "b", "a");
  create_hard_link(name, folder.path() / "hard");
  create_symlink(name, folder.path() / "soft");
  BOOST_TEST(is_same_file(name, folder.path() / "hard"));
  BOOST_TEST(is_same_file(folder.path() / "soft", name));
  BOOST_TEST(!is_same_file(name, folder.path() / "b"));
  BOOST_TEST(!is_same_file(name, folder.path() / "none"));
  BOOST_TEST(!is_same_file(folder.path() / "none", folder.path() / "none"));
}

}  // namespace chainpump
