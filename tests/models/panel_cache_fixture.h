// A made-up model file of two sections, and starts that load them through a cache: what the tests
// of the cache share. One thread, but for Start, which each thread may have of its own.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <string>
#include <vector>

#include "models/panel_cache/panel_cache.h"
#include "tests/fakes/temporary_folder.h"

namespace chainpump {

inline constexpr int64_t kTestRows = 40;  // no multiple of a panel's rows
inline constexpr int64_t kTestCols = 64;
inline constexpr DType kTestTypes[] = {DType::q8_0, DType::f32, DType::q4_1};

inline int64_t test_raw_bytes() {
  int64_t total = 0;
  for (const DType type : kTestTypes) total += kTestRows * row_bytes(type, kTestCols);
  return total;
}

/// Bytes that are other for each salt; every element is a number.
inline std::string test_weights(int salt) {
  std::string bytes(static_cast<size_t>(2 * test_raw_bytes()), '\0');
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<char>((i * 31 + i / 7 + static_cast<size_t>(salt) * 13) % 56);
  return bytes;
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// One start of one rank: two sections, each in the cache or not, and what came of it.
struct Start {
  struct Options {
    std::filesystem::path model;
    models::PanelCacheOptions cache;
    uint64_t fingerprint = 7;
    int threads = 2;
    std::vector<std::string> sections = {"layer-0", "head"};
  };

  explicit Start(const Options& options) {
    const Result<MappedFile> mapped = MappedFile::open(options.model);
    CHECK(mapped.ok());
    kernels::cpu::Team team =
        *kernels::cpu::Team::create({.num_threads = options.threads, .cores = {}, .spin = false});
    models::PanelCache cache(options.cache, {options.model, mapped->identity(), options.fingerprint,
                                             kernels::cpu::Isa::reference});
    for (size_t s = 0; s < options.sections.size(); ++s) {
      std::vector<kernels::cpu::PackedMatrix> matrices;
      models::PanelSection section{.name = options.sections[s], .parts = {}, .raw = {}};
      for (const DType type : kTestTypes)
        matrices.push_back(kernels::cpu::PackedMatrix::allocate(
            kernels::cpu::Isa::reference, type, kernels::cpu::ActivationPrecision::normal,
            kTestRows, kTestCols, &arena));
      size_t at = s * static_cast<size_t>(test_raw_bytes());
      for (size_t i = 0; i < matrices.size(); ++i) {
        const auto bytes = static_cast<size_t>(kTestRows * row_bytes(kTestTypes[i], kTestCols));
        section.parts.push_back({kTestTypes[i], mapped->bytes().subspan(at, bytes), &matrices[i]});
        at += bytes;
      }
      const bool hit = cache.load(section, team);
      hits.push_back(hit);
      if (!hit) {
        for (size_t i = 0; i < matrices.size(); ++i) matrices[i].fill(section.parts[i].raw, team);
        cache.store(section, team);
      }
      for (kernels::cpu::PackedMatrix& matrix : matrices) {
        const std::span<const std::byte> got = matrix.panels();
        panels.append(reinterpret_cast<const char*>(got.data()), got.size());
      }
    }
    raw_bytes_read = cache.raw_bytes_read();
    panel_bytes_read = cache.panel_bytes_read();
    note = cache.note();
  }

  bool all(bool hit) const { return hits == std::vector<bool>(hits.size(), hit); }

  kernels::cpu::PanelArena arena;
  std::vector<bool> hits;
  std::string panels;  // of all sections
  int64_t raw_bytes_read = 0;
  int64_t panel_bytes_read = 0;
  std::string note;
};

struct CacheFixture {
  CacheFixture() {
    write_file(options.model, test_weights(1));
    options.cache.folder = folder.path() / "cache" / "panels";
    options.cache.settle_ns = 0;  // the file has just been written, and nobody writes on
    Start::Options without = options;
    without.cache.folder.clear();
    expected = Start(without).panels;
  }
  /// Of the section whose name begins so; the only one.
  std::filesystem::path file_of(const std::string& section) const {
    std::filesystem::path found;
    for (const auto& entry : std::filesystem::directory_iterator(options.cache.folder))
      if (entry.path().filename().string().find("-" + section + "-") != std::string::npos) {
        BOOST_TEST_REQUIRE(found.empty());
        found = entry.path();
      }
    BOOST_TEST_REQUIRE(!found.empty());
    return found;
  }
  size_t num_files() const {
    const std::filesystem::directory_iterator files(options.cache.folder);
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  TemporaryFolder folder;
  Start::Options options = {.model = folder.path() / "model", .cache = {}};
  std::string expected;
};

}  // namespace chainpump
