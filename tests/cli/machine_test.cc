#include "cli/machine.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "actors/os/memory.h"
#include "base/file_io.h"
#include "cli/rates_cache.h"
#include "tests/fakes/temporary_folder.h"

namespace chainpump::cli {
namespace {

using kernels::cpu::Isa;

std::filesystem::path only_file(const std::filesystem::path& folder) {
  std::filesystem::path found;
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    found = entry.path();
    ++count;
  }
  BOOST_TEST_REQUIRE(count == 1u);
  return found;
}

void write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// A rate that no measurement gives by chance tells where the profile came from.
constexpr double kMarked = 123456789;

BOOST_AUTO_TEST_CASE(MeasuredOnceAndKept) {
  const TemporaryFolder folder;
  const MachineOptions options{folder.path() / "a" / "b", Isa::reference};
  cpu_set_t before;
  BOOST_TEST_REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
  graph::MachineProfile measured = machine_profile(options);
  cpu_set_t after;
  BOOST_TEST_REQUIRE(sched_getaffinity(0, sizeof(after), &after) == 0);
  BOOST_TEST(CPU_EQUAL(&before, &after), "measuring must leave the caller's cores alone");
  BOOST_TEST(measured.cores.size() == static_cast<size_t>(CPU_COUNT(&before)));
  BOOST_TEST(measured.read_bytes_per_s.size() == measured.cores.size());
  for (const double rate : measured.read_bytes_per_s) BOOST_TEST(rate > 1e6);
  BOOST_TEST(measured.int8_ops_per_s > 1e6);
  BOOST_TEST(measured.f32_ops_per_s > 1e6);
  BOOST_TEST(measured.bf16_ops_per_s > 1e6);
  BOOST_TEST(measured.memory_bytes > 0);

  const graph::MachineProfile again = machine_profile(options);
  BOOST_TEST(again.read_bytes_per_s == measured.read_bytes_per_s);
  BOOST_TEST(again.int8_ops_per_s == measured.int8_ops_per_s);
}

BOOST_AUTO_TEST_CASE(WeightsAreKeptInTheUsersFolderUnlessSwitchedOff) {
  struct Case {
    const char* cache_home;
    const char* home;
    const char* choice;
    const char* folder;
  };
  for (const Case& c : std::vector<Case>{
           {"/c", "/h", nullptr, "/c/chainpump/panels"},
           {"/c", "/h", "on", "/c/chainpump/panels"},
           {"/c", "/h", "", "/c/chainpump/panels"},
           {"relative", "/h", nullptr, "/h/.cache/chainpump/panels"},
           {nullptr, nullptr, nullptr, ""},
           {"/c", "/h", "off", ""},
       }) {
    const std::pair<const char*, const char*> variables[] = {
        {"XDG_CACHE_HOME", c.cache_home}, {"HOME", c.home}, {"CHAINPUMP_WEIGHT_CACHE", c.choice}};
    std::vector<std::optional<std::string>> before;
    const auto set = [](const char* name, const char* value) {
      value == nullptr ? unsetenv(name) : setenv(name, value, 1);
    };
    for (const auto& [name, value] : variables) {
      const char* const now = getenv(name);
      before.push_back(now == nullptr ? std::nullopt : std::optional<std::string>(now));
      set(name, value);
    }
    const auto folder = panel_cache_folder();
    setenv("CHAINPUMP_WEIGHT_CACHE", "/somewhere", 1);
    const auto refused = panel_cache_folder();
    for (size_t i = 0; i < before.size(); ++i)
      set(variables[i].first, before[i] ? before[i]->c_str() : nullptr);
    BOOST_TEST_REQUIRE(folder.ok());
    BOOST_TEST(*folder == c.folder);
    BOOST_TEST_REQUIRE(!refused.ok());
    BOOST_TEST((refused.error().code == ErrorCode::invalid_argument));
  }
}

BOOST_AUTO_TEST_CASE(UnusableCachesAreMeasuredAnew) {
  const TemporaryFolder folder;
  const MachineOptions options{folder.path(), Isa::reference};
  const size_t num_cores = machine_profile(options).cores.size();
  const auto path = only_file(folder.path());
  std::string good = read_small_file(path, 1 << 16).value();
  const size_t at = good.find("\"int8_ops_per_s\": ") + 18;
  const size_t end = good.find_first_of(",\n", at);
  const auto with_int8 = [&](std::string_view value) {
    return good.substr(0, at) + std::string(value) + good.substr(end);
  };
  write(path, with_int8("123456789.0"));
  BOOST_TEST_REQUIRE(machine_profile(options).int8_ops_per_s == kMarked);  // it is read

  std::string other_machine = with_int8("123456789.0");
  other_machine.replace(other_machine.find("cores "), 6, "horse ");
  std::string too_few = with_int8("123456789.0");
  const size_t list = too_few.find('[');
  too_few.replace(list, too_few.find(']') - list, "[");
  const std::string kTable[] = {"",
                                "{",
                                "null",
                                "[1, 2]",
                                "{\"key\": 3}",
                                std::string(60000, '['),
                                std::string(1 << 20, ' ') + with_int8("123456789.0"),
                                with_int8("123456789.0").substr(0, good.size() / 2),
                                other_machine,
                                too_few,
                                with_int8("1e999"),
                                with_int8("-5"),
                                with_int8("0"),
                                with_int8("1e30"),
                                with_int8("\"123456789\""),
                                with_int8("{}"),
                                std::string("\0\xff\xfe", 3)};
  for (const std::string& text : kTable) {
    write(path, text);
    const graph::MachineProfile machine = machine_profile(options);
    BOOST_TEST(machine.int8_ops_per_s != kMarked, text.substr(0, 200));
    BOOST_TEST(machine.int8_ops_per_s > 1e6);
    BOOST_TEST(machine.read_bytes_per_s.size() == num_cores);
    BOOST_TEST(read_small_file(path, 1 << 16).value().find("\"key\"") != std::string::npos,
               "not rewritten");
  }
}

BOOST_AUTO_TEST_CASE(FoldersThatCannotBeWritten) {
  const TemporaryFolder folder;
  write(folder.path() / "file", "x");
  for (const std::filesystem::path& cache :
       {folder.path() / "file" / "below", std::filesystem::path("/proc/chainpump"),
        std::filesystem::path()})
    BOOST_TEST(machine_profile({cache, Isa::reference}).int8_ops_per_s > 1e6);
  // Where the file should be, a folder: nothing can be read or replaced.
  const MachineOptions options{folder.path() / "c", Isa::reference};
  machine_profile(options);
  const auto path = only_file(options.cache_folder);
  std::filesystem::remove(path);
  std::filesystem::create_directories(path / "x");
  BOOST_TEST(machine_profile(options).int8_ops_per_s > 1e6);
  BOOST_TEST(only_file(options.cache_folder) == path);  // no temporary file is left
  BOOST_TEST(!read_small_file("/dev/zero", 10).has_value());
}

BOOST_AUTO_TEST_CASE(MemoryIsTheLeastOfAllLimits) {
  const std::string meminfo = "MemTotal:       2000 kB\nMemAvailable:   1000 kB\n";
  struct Case {
    std::string cgroup;
    std::vector<std::pair<std::string, std::string>> files;
    int64_t bytes;
  };
  const Case kTable[] = {
      {"", {}, 1000 << 10},
      {"0::/a/b\n", {{"a/b/memory.max", "max\n"}, {"a/memory.max", "4096\n"}}, 4096},
      {"0::/outer/name\n", {{"memory.max", "8192\n"}}, 8192},  // our group seen as the root
      {"0::/a\n", {{"a/memory.max", "999999999999\n"}}, 1000 << 10},
      {"5:cpu,memory:/x\n", {{"memory/x/memory.limit_in_bytes", "12288\n"}}, 12288},
      {"5:cpu:/x\n", {{"memory/x/memory.limit_in_bytes", "12288\n"}}, 1000 << 10},
      {"0::/../../etc\n", {{"memory.max", "4096\n"}}, 1000 << 10},
      {"garbage\n\n::::\n0::/a\n", {{"a/memory.max", "-3\n"}}, 1000 << 10},
  };
  for (const Case& c : kTable) {
    const TemporaryFolder root;
    write(root.path() / "proc/meminfo", meminfo);
    write(root.path() / "proc/self/cgroup", c.cgroup);
    for (const auto& [name, text] : c.files) write(root.path() / "sys/fs/cgroup" / name, text);
    BOOST_TEST(os::usable_memory_bytes(root.path()) == c.bytes, c.cgroup);
  }
  const TemporaryFolder nothing;
  BOOST_TEST(os::usable_memory_bytes(nothing.path()) == int64_t{1} << 30);
  BOOST_TEST(os::usable_memory_bytes() > int64_t{1} << 20);
}

BOOST_AUTO_TEST_CASE(EnvironmentChooses) {
  setenv("XDG_CACHE_HOME", "/x", 1);
  setenv("HOME", "/h", 1);
  BOOST_TEST(machine_options_of_environment().cache_folder == "/x/chainpump");
  setenv("XDG_CACHE_HOME", "relative", 1);
  BOOST_TEST(machine_options_of_environment().cache_folder == "/h/.cache/chainpump");
  unsetenv("HOME");
  BOOST_TEST(machine_options_of_environment().cache_folder.empty());
  setenv("CHAINPUMP_ISA", "reference", 1);
  BOOST_TEST((machine_options_of_environment().isa == Isa::reference));
  setenv("CHAINPUMP_ISA", "abacus", 1);
  BOOST_TEST((machine_options_of_environment().isa == kernels::cpu::available_isas().back()));
  unsetenv("CHAINPUMP_ISA");
}

}  // namespace
}  // namespace chainpump::cli
