#include "cli/inspect.h"

#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/models/gguf_builder.h"

namespace chainpump::cli {
namespace {

// A file on disk that goes with the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::vector<std::byte>& bytes)
      : path_((std::filesystem::temp_directory_path() /
               fmt::format("chainpump_inspect_{}.gguf", ::getpid()))
                  .string()) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

models::GgufBuilder sample() {
  models::GgufBuilder file;
  file.head(3, 2, 6).text_key("general.architecture", "llama");
  file.text_key("general.name", "caf\xC3\xA9 \x1b[31m");
  file.text_key("broken", "a\xFF");
  file.key("eps", models::kGgufFloat32).number(std::numeric_limits<float>::infinity());
  file.numbers_key<int32_t>("few", models::kGgufInt32, {1, -2});
  file.numbers_key<int32_t>("many", models::kGgufInt32, std::vector<int32_t>(20, 7));
  file.tensor("token_embd.weight", {32, 3}, 8, 0).tensor("norm", {4}, 0, 128);
  file.data(144);
  return file;
}

}  // namespace

BOOST_AUTO_TEST_CASE(inspect_json_tells_all) {
  const TemporaryFile file(sample().bytes());
  const Result<std::string> report = inspect_report({file.path(), OutputFormat::json});
  BOOST_TEST_REQUIRE(report.ok(), (report.ok() ? "" : report.error().message));
  const auto json = nlohmann::json::parse(*report);
  BOOST_TEST(json["file"] == file.path());
  BOOST_TEST(json["version"] == 3);
  BOOST_TEST(json["file_bytes"] == sample().bytes().size());
  BOOST_TEST(json["parameters"] == 100);
  BOOST_TEST(json["fingerprint"].get<std::string>().size() == 16u);
  const auto& metadata = json["metadata"];
  BOOST_TEST(metadata["general.architecture"] == "llama");
  BOOST_TEST(metadata["general.name"] == "caf\xC3\xA9 \x1b[31m");
  BOOST_TEST(metadata["broken"] == "a\\xff");
  BOOST_TEST(metadata["eps"] == "inf");
  BOOST_TEST(metadata["few"].dump() == "[1,-2]");
  BOOST_TEST(metadata["many"]["count"] == 20);
  BOOST_TEST(metadata["many"]["first"].size() == 16u);
  BOOST_TEST_REQUIRE(json["tensors"].size() == 2u);
  const auto& tensor = json["tensors"][0];
  BOOST_TEST(tensor["name"] == "token_embd.weight");
  BOOST_TEST(tensor["type"] == "q8_0");
  BOOST_TEST(tensor["dims"].dump() == "[32,3]");
  BOOST_TEST(tensor["bytes"] == 102);
  BOOST_TEST(json["tensors"][1]["offset"].get<int>() - tensor["offset"].get<int>() == 128);
}

BOOST_AUTO_TEST_CASE(inspect_table_is_fit_for_a_terminal) {
  const TemporaryFile file(sample().bytes());
  const Result<std::string> report = inspect_report({file.path(), OutputFormat::table});
  BOOST_TEST_REQUIRE(report.ok(), (report.ok() ? "" : report.error().message));
  for (const char* text : {"GGUF v3", "2 tensors, 100 parameters", "general.architecture  llama",
                           "20 values: [7,7,", "32 x 3", "token_embd.weight  q8_0"})
    BOOST_TEST(report->find(text) != std::string::npos, *report << " lacks " << text);
  for (const char c : *report) BOOST_TEST((c == '\n' || (c >= 0x20 && c < 0x7f)));
}

BOOST_AUTO_TEST_CASE(inspect_exit_status_tells_the_error) {
  const TemporaryFile bad(models::GgufBuilder().head(3, 9, 0).bytes());
  BOOST_TEST(run_inspect({bad.path(), OutputFormat::table}) == 3);
  BOOST_TEST(run_inspect({"/does/not/exist", OutputFormat::json}) == 3);
  const TemporaryFile good(sample().bytes());
  BOOST_TEST(run_inspect({good.path(), OutputFormat::json}) == 0);
}

}  // namespace chainpump::cli
