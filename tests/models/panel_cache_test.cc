// When a file of repacked weights is used and when not: never a wrong byte, whatever lies there.
#include "models/panel_cache/panel_cache.h"

#include <sys/stat.h>

#include <barrier>
#include <boost/test/unit_test.hpp>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "tests/models/panel_cache_fixture.h"

namespace chainpump {
namespace {

/// In place, with the old modification time, as some tools do; until the change time has moved,
/// which may take a tick of the kernel's clock.
void overwrite(const std::filesystem::path& path, std::string_view bytes) {
  struct stat before {};
  BOOST_TEST_REQUIRE(stat(path.c_str(), &before) == 0);
  const auto identity = file_identity(path);
  const TimePoint deadline = steady_clock().now() + std::chrono::seconds(10);
  while (file_identity(path) == identity) {
    BOOST_TEST_REQUIRE((steady_clock().now() < deadline));
    const UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    BOOST_TEST_REQUIRE(pwrite(fd.get(), bytes.data(), bytes.size(), 0) ==
                       static_cast<ssize_t>(bytes.size()));
    const timespec times[2] = {before.st_atim, before.st_mtim};
    BOOST_TEST_REQUIRE(futimens(fd.get(), times) == 0);
  }
}

BOOST_FIXTURE_TEST_SUITE(panel_cache, CacheFixture)

BOOST_AUTO_TEST_CASE(a_second_start_reads_nothing_of_the_model) {
  const Start first(options);
  BOOST_TEST(first.all(false));
  BOOST_TEST((first.panels == expected));
  const Start second(options);
  BOOST_TEST(second.all(true));
  BOOST_TEST((second.panels == expected));
  BOOST_TEST(second.raw_bytes_read == 0);
  BOOST_TEST(second.panel_bytes_read == static_cast<int64_t>(expected.size()));
  BOOST_TEST(second.note == "");
  BOOST_TEST((std::filesystem::status(options.cache.folder).permissions() ==
              std::filesystem::perms::owner_all));
}

BOOST_AUTO_TEST_CASE(sections_are_shared_whatever_else_a_rank_holds) {
  options.sections = {"layer-0"};
  const Start one(options);
  options.sections = {"layer-0", "head"};
  options.threads = 1;
  const Start two(options);
  BOOST_TEST((two.hits == std::vector<bool>{true, false}));
  BOOST_TEST((two.panels == expected));
}

BOOST_AUTO_TEST_CASE(another_model_or_section_is_not_found) {
  const Start first(options);
  options.fingerprint = 8;
  BOOST_TEST(Start(options).all(false));
  options.fingerprint = 7;
  options.sections = {"layer-1", "layer-2"};
  BOOST_TEST(Start(options).all(false));
}

BOOST_AUTO_TEST_CASE(a_model_edited_in_place_is_noticed) {
  const Start first(options);
  std::string bytes = test_weights(1);
  bytes[static_cast<size_t>(test_raw_bytes()) + 5] ^= 1;  // in the second section
  overwrite(options.model, bytes);
  Start::Options without = options;
  without.cache.folder.clear();
  const std::string changed = Start(without).panels;
  BOOST_TEST((changed != expected));
  const Start second(options);
  BOOST_TEST((second.hits == std::vector<bool>{true, false}));
  BOOST_TEST((second.panels == changed));
  BOOST_TEST(second.note == "");
  const Start third(options);
  BOOST_TEST(third.all(true));
  BOOST_TEST((third.panels == changed));
  BOOST_TEST(third.raw_bytes_read == 0);
}

BOOST_AUTO_TEST_CASE(a_copied_or_touched_model_is_read_once_and_hits) {
  const Start first(options);
  const std::filesystem::path copy = folder.path() / "copy";
  std::filesystem::copy_file(options.model, copy);
  options.model = copy;
  for (const int64_t read : {2 * test_raw_bytes(), int64_t{0}}) {
    const Start start(options);
    BOOST_TEST(start.all(true));
    BOOST_TEST((start.panels == expected));
    BOOST_TEST(start.raw_bytes_read == read);
  }
}

BOOST_AUTO_TEST_CASE(a_model_that_has_just_changed_is_not_known_by_its_times) {
  options.cache.settle_ns = int64_t{3600} * 1'000'000'000;
  const Start first(options);
  for (int round = 0; round < 2; ++round) {
    const Start start(options);
    BOOST_TEST(start.all(true));
    BOOST_TEST(start.raw_bytes_read == 2 * test_raw_bytes());
  }
}

BOOST_AUTO_TEST_CASE(a_model_that_changes_while_it_is_packed_is_not_kept) {
  // The panels below belong to what `raw` says the file was, not to what it is now.
  const Result<MappedFile> mapped = MappedFile::open(options.model);
  BOOST_TEST_REQUIRE(mapped.ok());
  kernels::cpu::Team team = *kernels::cpu::Team::create({});
  models::PanelCache cache(options.cache,
                           {options.model, mapped->identity(), 7, kernels::cpu::Isa::reference});
  auto matrix = kernels::cpu::PackedMatrix::allocate(kernels::cpu::Isa::reference, DType::q8_0,
                                                     kernels::cpu::ActivationPrecision::normal,
                                                     kTestRows, kTestCols, nullptr);
  const auto bytes = static_cast<size_t>(kTestRows * row_bytes(DType::q8_0, kTestCols));
  models::PanelSection section{
      "layer-0", {{DType::q8_0, mapped->bytes().first(bytes), &matrix}}, {}};
  BOOST_TEST(!cache.load(section, team));
  matrix.fill(section.parts[0].raw, team);
  overwrite(options.model, test_weights(2));
  cache.store(section, team);
  BOOST_TEST(num_files() == 0u);
}

struct Damage {
  const char* name;
  std::function<void(const std::filesystem::path&)> make;
};

void flip(const std::filesystem::path& path, int64_t at) {
  std::string bytes = read_file(path);
  bytes[at < 0 ? bytes.size() - static_cast<size_t>(-at) : static_cast<size_t>(at)] ^= 4;
  write_file(path, bytes);
}

/// A head that is whole, but lies.
void change_header(const std::filesystem::path& path,
                   const std::function<void(models::PanelHeader&)>& change) {
  std::string bytes = read_file(path);
  auto header = models::decode_panel_header(std::as_bytes(std::span(bytes)));
  BOOST_TEST_REQUIRE(header.ok());
  change(*header);
  const std::vector<std::byte> head = models::encode(*header);
  std::copy(head.begin(), head.end(), reinterpret_cast<std::byte*>(bytes.data()));
  write_file(path, bytes);
}

void replace(const std::filesystem::path& path, const std::function<int(const char*)>& make) {
  std::filesystem::rename(path, path.string() + ".old");
  BOOST_TEST_REQUIRE(make(path.c_str()) == 0);
}

std::vector<Damage> damages() {
  const auto at = [](int64_t offset) { return [=](const auto& path) { flip(path, offset); }; };
  const auto size = [](int64_t bytes) {
    return [=](const auto& path) {
      const auto now = static_cast<int64_t>(std::filesystem::file_size(path));
      std::filesystem::resize_file(path, static_cast<uintmax_t>(bytes < 0 ? now + bytes : bytes));
    };
  };
  return {
      {"empty", size(0)},
      {"half a head", size(100)},
      {"a head alone", size(4096)},
      {"one byte short", size(-1)},
      {"one byte long", [](const auto& path) { write_file(path, read_file(path) + "x"); }},
      {"magic", at(0)},
      {"key", at(8)},
      {"raw", at(24)},
      {"data hash", at(40)},
      {"data bytes", at(56)},
      {"checksum", at(64)},
      {"first panel byte", at(4096)},
      {"last panel byte", at(-1)},
      {"another key",
       [](const auto& path) { change_header(path, [](auto& header) { ++header.key.low; }); }},
      {"a huge size",
       [](const auto& path) {
         change_header(path, [](auto& header) { header.data_bytes = ~uint64_t{0} - 4095; });
       }},
      {"another data hash",
       [](const auto& path) { change_header(path, [](auto& header) { ++header.data.high; }); }},
      {"a symbolic link",
       [](const auto& path) {
         replace(path, [&](const char* at_path) {
           return symlink((path.string() + ".old").c_str(), at_path);
         });
       }},
      {"a pipe",
       [](const auto& path) {
         replace(path, [](const char* at_path) { return mkfifo(at_path, 0600); });
       }},
      {"writable by others",
       [](const auto& path) { BOOST_TEST_REQUIRE(chmod(path.c_str(), 0622) == 0); }},
  };
}

BOOST_AUTO_TEST_CASE(a_bad_file_is_repacked_noted_and_replaced) {
  for (const Damage& damage : damages()) {
    BOOST_TEST_CONTEXT(damage.name) {
      std::filesystem::remove_all(options.cache.folder);
      const Start first(options);
      const std::filesystem::path file = file_of("head");
      damage.make(file);
      const Start second(options);
      BOOST_TEST((second.hits == std::vector<bool>{true, false}));
      BOOST_TEST((second.panels == expected));
      BOOST_TEST(second.note.find(file.filename()) != std::string::npos, second.note);
      const Start third(options);
      BOOST_TEST(third.all(true));
      BOOST_TEST((third.panels == expected));
      BOOST_TEST(third.note == "");
    }
  }
}

BOOST_AUTO_TEST_CASE(a_source_that_is_damaged_or_another_costs_one_reading) {
  const Start first(options);
  flip(file_of("head"), 80);
  const Start second(options);
  BOOST_TEST(second.all(true));
  BOOST_TEST(second.raw_bytes_read == test_raw_bytes());
  change_header(file_of("head"), [](auto& header) { ++header.source.changed_ns; });
  const Start third(options);
  BOOST_TEST(third.all(true));
  BOOST_TEST(third.raw_bytes_read == test_raw_bytes());
  BOOST_TEST(Start(options).raw_bytes_read == 0);
}

BOOST_AUTO_TEST_CASE(a_file_of_another_model_with_the_same_fingerprint_is_not_used) {
  const Start first(options);
  change_header(file_of("head"), [](auto& header) {
    ++header.raw.low;
    header.source = {};
  });
  const Start second(options);
  BOOST_TEST((second.hits == std::vector<bool>{true, false}));
  BOOST_TEST((second.panels == expected));
}

BOOST_AUTO_TEST_CASE(what_belongs_to_another_user_is_not_used) {
  if (geteuid() != 0) {
    BOOST_TEST_MESSAGE("only root can give files away: nothing tested");
    return;
  }
  const Start first(options);
  BOOST_TEST_REQUIRE(chown(file_of("head").c_str(), 65533, 65533) == 0);
  const Start second(options);
  BOOST_TEST((second.hits == std::vector<bool>{true, false}));
  BOOST_TEST(second.note.find("written by others") != std::string::npos, second.note);
  BOOST_TEST_REQUIRE(chown(options.cache.folder.c_str(), 65533, 65533) == 0);
  const Start third(options);
  BOOST_TEST(third.all(false));
  BOOST_TEST((third.panels == expected));
  BOOST_TEST(third.note.find("written by others") != std::string::npos, third.note);
}

BOOST_AUTO_TEST_CASE(a_folder_that_others_may_write_is_not_used) {
  const Start first(options);
  std::filesystem::permissions(options.cache.folder, std::filesystem::perms::all);
  const Start second(options);
  BOOST_TEST(second.all(false));
  BOOST_TEST(second.note.find("written by others") != std::string::npos, second.note);
}

BOOST_AUTO_TEST_CASE(racing_writers_leave_one_good_file_each) {
  constexpr int kRacers = 4;
  options.threads = 1;
  for (int round = 0; round < 20; ++round) {
    std::filesystem::remove_all(options.cache.folder);
    std::barrier ready(kRacers);
    std::vector<std::thread> racers;
    std::vector<std::string> panels(kRacers);
    std::vector<std::string> notes(kRacers);
    for (size_t i = 0; i < kRacers; ++i)
      racers.emplace_back([&, i] {
        ready.arrive_and_wait();
        const Start start(options);
        panels[i] = start.panels;
        notes[i] = start.note;
      });
    for (std::thread& racer : racers) racer.join();
    for (size_t i = 0; i < kRacers; ++i) {
      BOOST_TEST((panels[i] == expected));
      BOOST_TEST(notes[i] == "");
    }
    BOOST_TEST(num_files() == 2u);
    BOOST_TEST(Start(options).all(true));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace chainpump
